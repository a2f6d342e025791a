"""Rerank."""

from tests.gateway.caller import Caller


async def test_rerank_ranks_the_last_document_first(caller: Caller) -> None:
    asked = {"query": "q", "documents": ["a", {"text": "b"}], "top_n": 1}
    response = await caller.client.post("/v1/rerank", json=asked, headers=caller.headers)
    assert (await response.get_json())["results"] == [{"index": 1, "relevance_score": 1.0}]
