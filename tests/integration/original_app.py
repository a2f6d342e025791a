"""The Flask original in short, after its author's article: two routes, a token in each request, his streams.

python -m tests.integration.original_app GATEWAY PORT
"""

import json
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Flask, Response, request
from openai import OpenAI

from tests.pace import PATIENCE

MOUNT = "/agent/api/llm_proxy"


def create_original(gateway: str) -> Flask:
    """The application.

    Args:
        gateway: Where the company's gateway is; its token endpoint is at `/token`.
    """
    blueprint = Blueprint("api_llm_proxy", __name__, url_prefix=MOUNT)

    def get_token() -> str:
        asked = urllib.request.Request(
            f"{gateway}/token",
            json.dumps({"appId": "demo", "appSecret": "demo-secret"}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE) as reply:
            token: str = json.load(reply)["data"]["token"]
        return token

    def client() -> OpenAI:
        return OpenAI(base_url=f"{gateway}/v1", api_key=get_token(), max_retries=0, timeout=PATIENCE)

    @blueprint.post("/v1/chat/completions")
    def chat_completions() -> Any:
        payload = request.json or {}
        answer: Any = client().chat.completions.create(**payload)
        if payload.get("stream") is not True:
            return answer.to_json()

        def stream_response() -> Iterator[str]:
            for chunk in answer:
                yield f"data:{json.dumps(chunk.to_dict(), ensure_ascii=False)}\n\n"

        return Response(stream_response(), mimetype="text/event-stream")

    @blueprint.post("/v1/embeddings")
    def embeddings() -> Any:
        return client().embeddings.create(**(request.json or {})).to_json()

    app = Flask(__name__)
    app.register_blueprint(blueprint)
    return app


if __name__ == "__main__":
    create_original(sys.argv[1]).run("127.0.0.1", int(sys.argv[2]), threaded=True)
