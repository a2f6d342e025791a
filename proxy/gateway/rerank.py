"""Rerank without a model: the later a document stands in the list, the better.

https://docs.cohere.com/reference/rerank
"""

from typing import Annotated

import msgspec
from quart import Blueprint, Response

from proxy.gateway.oddities import choose
from proxy.gateway.request_bodies import read_body
from proxy.gateway.state import current_gateway

RERANK_MODEL = "mock-rerank-model"

blueprint = Blueprint("rerank", __name__, url_prefix="/v1")


class RerankRequest(msgspec.Struct, kw_only=True):
    """`POST /v1/rerank`, as Cohere and Jina have it."""

    query: str
    documents: Annotated[list[str | dict[str, object]], msgspec.Meta(min_length=1)]
    model: str = RERANK_MODEL
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None


@blueprint.post("/rerank")
async def rerank() -> Response:
    """Rank the documents, the last one first, with scores up to 1."""
    asked = await read_body(RerankRequest)
    odd = choose(current_gateway(), asked.model)
    count = len(asked.documents)
    results = [{"index": index, "relevance_score": (index + 1) / count} for index in reversed(range(count))]
    meta = {"api_version": {"version": "1"}, "billed_units": {"search_units": 1}}
    return odd.respond({"id": "rerank", "results": results[: asked.top_n], "meta": meta})
