"""The relayed routes: the Flask original's two, one to one, and every other path of OpenAI's API."""

from http import HTTPMethod
from typing import Final

from quart import Blueprint

from proxy.asgi import relayed
from proxy.blueprints.exchange import relay_exchange
from proxy.upstream.relay import RelayedResponse
from proxy.wire.endpoints import BARE_SEGMENTS, CHAT_COMPLETIONS, COHERE_RERANK, EMBEDDINGS

blueprint = Blueprint("api_llm_proxy", __name__)

# TRACE and CONNECT are for proxies, not for an API.
METHODS: Final = sorted(set(HTTPMethod) - {HTTPMethod.TRACE, HTTPMethod.CONNECT})
_BARE: Final = f"<any({', '.join(BARE_SEGMENTS)}):_segment>"


@blueprint.post(f"/v1/{CHAT_COMPLETIONS.name}", provide_automatic_options=False)
@relayed
async def chat_completions() -> RelayedResponse:
    """Relay a chat completion, streamed or not."""
    return await relay_exchange()


@blueprint.post(f"/v1/{EMBEDDINGS.name}", provide_automatic_options=False)
@relayed
async def embeddings() -> RelayedResponse:
    """Relay an embeddings request."""
    return await relay_exchange()


@blueprint.post(f"/{COHERE_RERANK}", provide_automatic_options=False)
@relayed
async def cohere_rerank() -> RelayedResponse:
    """Relay Cohere's rerank, which has the same body and response as `rerank`."""
    return await relay_exchange()


@blueprint.route("/v1/<path:_path>", methods=METHODS, provide_automatic_options=False)
@relayed
async def any_v1_path(_path: str) -> RelayedResponse:
    """Relay every other path below /v1, with any method, query and body."""
    return await relay_exchange()


@blueprint.route(f"/{CHAT_COMPLETIONS.name}", methods=METHODS, provide_automatic_options=False)
@blueprint.route(f"/{CHAT_COMPLETIONS.name}/<path:_path>", methods=METHODS, provide_automatic_options=False)
@blueprint.route(f"/{_BARE}", methods=METHODS, provide_automatic_options=False)
@blueprint.route(f"/{_BARE}/<path:_path>", methods=METHODS, provide_automatic_options=False)
@relayed
async def bare_path(_segment: str = "", _path: str = "") -> RelayedResponse:
    """Relay OpenAI's paths without /v1, for clients whose base URL has none."""
    return await relay_exchange()
