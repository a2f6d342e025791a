"""The list of models: one for chat, one for embeddings."""

from typing import TypedDict

from quart import Blueprint, Response

from proxy.gateway.errors import GatewayError, json_response
from proxy.gateway.request_bodies import CHAT_MODEL, EMBEDDING_MODEL

CREATED = 1_740_062_666  # epoch seconds; any fixed instant

blueprint = Blueprint("models", __name__, url_prefix="/v1")


class Model(TypedDict):
    """https://platform.openai.com/docs/api-reference/models/object."""

    id: str
    object: str
    created: int
    owned_by: str


@blueprint.get("/models")
async def list_models() -> Response:
    """List the models."""
    return json_response({"object": "list", "data": [_model(CHAT_MODEL), _model(EMBEDDING_MODEL)]})


@blueprint.get("/models/<path:name>")
async def get_model(name: str) -> Response:
    """Describe one model."""
    if name not in {CHAT_MODEL, EMBEDDING_MODEL}:
        raise GatewayError(404, f"The model '{name}' does not exist", param="model", code="model_not_found")
    return json_response(_model(name))


def _model(name: str) -> Model:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "gateway"}
