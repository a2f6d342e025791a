"""Routes, one module per resource. A view reads the request, makes one call and returns the response.

The module of each path, without the mount /agent/api/llm_proxy; the same path decides, or else the
longest that matches:

/v1                    index.py       says that it is the base URL of clients
/v1/*                  llm_proxy.py   its views call exchange.py, which relays the request
/v1/                   index.py
/v1/models             models.py      unless the list is relayed; exchange.py calls it
/v1/realtime           realtime.py    the WebSocket
/v2/rerank             llm_proxy.py   Cohere's rerank
/chat/completions*     llm_proxy.py   OpenAI's paths without /v1; so are /embeddings, /files and others
/chat/*                chat.py        with chat_guard.py and chat_session.py
/status*               status.py
/                      index.py
/docs                  api_docs.py
/openapi.json          api_docs.py
/livez                 ops.py
/readyz                ops.py
/healthz               ops.py
/metrics               ops.py
/internal/credential   offload.py
"""
