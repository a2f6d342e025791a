"""Model endpoints other than completions: the model list, embeddings and rerank. None needs a real model."""

import base64
import math
import struct
from hashlib import sha256
from typing import Annotated, Literal, TypedDict

import msgspec
from quart import Blueprint, Response

from proxy.gateway.completions import CHAT_MODEL
from proxy.gateway.echo import split_pieces
from proxy.gateway.http import GatewayError, json_response, read_body
from proxy.gateway.state import current_gateway

EMBEDDING_MODEL = "mock-embedding-model"
RERANK_MODEL = "mock-rerank-model"
CREATED = 1_740_062_666  # epoch seconds; any fixed time
DIMENSIONS = 256
MAX_DIMENSIONS = 4096

EmbeddingItem = str | list[int]

blueprint = Blueprint("models", __name__, url_prefix="/v1")


class Model(TypedDict):
    """https://platform.openai.com/docs/api-reference/models/object."""

    id: str
    object: str
    created: int
    owned_by: str


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """`POST /v1/embeddings`: texts, or texts as token numbers."""

    input: str | list[str | int | list[int]]
    model: str = EMBEDDING_MODEL
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=MAX_DIMENSIONS)] | None = None
    encoding_format: Literal["float", "base64"] | None = "float"


class RerankRequest(msgspec.Struct, kw_only=True):
    """`POST /v1/rerank`, as Cohere and Jina define it: https://docs.cohere.com/reference/rerank."""

    query: str
    documents: Annotated[list[str | dict[str, object]], msgspec.Meta(min_length=1)]
    model: str = RERANK_MODEL
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None


@blueprint.get("/models")
async def list_models() -> Response:
    """List one model for chat and one for embeddings; any other name is accepted too."""
    return json_response({"object": "list", "data": [_model(CHAT_MODEL), _model(EMBEDDING_MODEL)]})


@blueprint.get("/models/<path:name>")
async def get_model(name: str) -> Response:
    """Describe one model."""
    if name not in {CHAT_MODEL, EMBEDDING_MODEL}:
        raise GatewayError(404, f"The model '{name}' does not exist", param="model", code="model_not_found")
    return json_response(_model(name))


@blueprint.post("/embeddings")
async def embeddings() -> Response:
    """Embed every input as a unit vector that is computed from its SHA-256."""
    current_gateway().stats.embedding_requests += 1
    body = await read_body(EmbeddingRequest)
    items = items_of(body.input)
    packed = [pack_vector(item, body.dimensions or DIMENSIONS) for item in items]
    encode = _to_base64 if body.encoding_format == "base64" else _to_floats
    tokens = sum(len(split_pieces(item) if isinstance(item, str) else item) for item in items)
    data = [
        {"object": "embedding", "index": index, "embedding": encode(vector)}
        for index, vector in enumerate(packed)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_response({"object": "list", "data": data, "model": body.model, "usage": usage})


@blueprint.post("/rerank")
async def rerank() -> Response:
    """Rank the documents in reverse order, with scores up to 1."""
    body = await read_body(RerankRequest)
    count = len(body.documents)
    results = [{"index": index, "relevance_score": (index + 1) / count} for index in reversed(range(count))]
    meta = {"api_version": {"version": "1"}, "billed_units": {"search_units": 1}}
    return json_response({"id": "rerank", "results": results[: body.top_n], "meta": meta})


def items_of(value: str | list[str | int | list[int]]) -> list[EmbeddingItem]:
    """Normalise OpenAI's four forms of input: a text, texts, a list of token numbers, several such lists.

    Raises:
        GatewayError: 400 for an empty list or a mixture.
    """
    if isinstance(value, str):
        return [value]
    numbers = [item for item in value if isinstance(item, int)]
    if numbers and len(numbers) == len(value):
        return [numbers]
    items: list[EmbeddingItem] = [item for item in value if not isinstance(item, int)]
    if not items or len(items) < len(value) or len({type(item) for item in items}) > 1:
        raise GatewayError(400, "input must be a text, texts, or token numbers, and not empty", param="input")
    return items


def pack_vector(item: EmbeddingItem, dimensions: int) -> bytes:
    """Return a unit vector as little-endian float32.

    The digest of the item's JSON, hashed with a counter, supplies the 32-bit integers.
    """
    seed = sha256(msgspec.json.encode(item)).digest()
    blocks = -(-dimensions // 8)  # eight integers per digest
    drawn = b"".join(sha256(seed + block.to_bytes(4, "little")).digest() for block in range(blocks))
    numbers = struct.unpack(f"<{dimensions}i", drawn[: 4 * dimensions])
    length = math.hypot(*numbers)
    return struct.pack(f"<{dimensions}f", *(number / length for number in numbers))


def _model(name: str) -> Model:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "gateway"}


def _to_base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _to_floats(vector: bytes) -> tuple[float, ...]:
    floats: tuple[float, ...] = struct.unpack(f"<{len(vector) // 4}f", vector)
    return floats
