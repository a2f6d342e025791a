"""Embeddings without a model: the same input gives the same unit vector, drawn from its SHA-256."""

import base64
import math
import struct
from hashlib import sha256

import msgspec
from quart import Blueprint, Response

from proxy.gateway.echo import split_pieces
from proxy.gateway.errors import GatewayError
from proxy.gateway.oddities import choose
from proxy.gateway.request_bodies import EmbeddingRequest, read_body
from proxy.gateway.state import current_gateway

DIMENSIONS = 256

Item = str | list[int]

blueprint = Blueprint("embeddings", __name__, url_prefix="/v1")


@blueprint.post("/embeddings")
async def embeddings() -> Response:
    """Embed every input."""
    current_gateway().stats.embedding_requests += 1
    asked = await read_body(EmbeddingRequest)
    odd = choose(current_gateway(), asked.model)
    items = items_of(asked.input)
    packed = [pack_vector(item, asked.dimensions or DIMENSIONS) for item in items]
    encode = _to_base64 if asked.encoding_format == "base64" else _to_floats
    tokens = sum(len(split_pieces(item) if isinstance(item, str) else item) for item in items)
    data = [
        {"object": "embedding", "index": index, "embedding": encode(vector)}
        for index, vector in enumerate(packed)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return odd.respond({"object": "list", "data": data, "model": asked.model, "usage": usage})


def items_of(asked: str | list[str | int | list[int]]) -> list[Item]:
    """Sort out OpenAI's four forms of input: one text, texts, one list of token numbers, several such.

    Raises:
        GatewayError: 400 for an empty list or a mixture.
    """
    if isinstance(asked, str):
        return [asked]
    numbers = [item for item in asked if isinstance(item, int)]
    if numbers and len(numbers) == len(asked):
        return [numbers]
    items: list[Item] = [item for item in asked if not isinstance(item, int)]
    if not items or len(items) < len(asked) or len({type(item) for item in items}) > 1:
        raise GatewayError(400, "input must be a text, texts, or token numbers, and not empty", param="input")
    return items


def pack_vector(item: Item, dimensions: int) -> bytes:
    """Make a unit vector as little-endian float32.

    The digest of the item's JSON, hashed with a counter, gives as many 32-bit integers as are needed.
    """
    seed = sha256(msgspec.json.encode(item)).digest()
    blocks = -(-dimensions // 8)  # eight integers a digest
    drawn = b"".join(sha256(seed + block.to_bytes(4, "little")).digest() for block in range(blocks))
    numbers = struct.unpack(f"<{dimensions}i", drawn[: 4 * dimensions])
    length = math.hypot(*numbers)
    return struct.pack(f"<{dimensions}f", *(number / length for number in numbers))


def _to_base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _to_floats(vector: bytes) -> tuple[float, ...]:
    floats: tuple[float, ...] = struct.unpack(f"<{len(vector) // 4}f", vector)
    return floats
