"""The list of models that merges those of the upstreams, through the real service."""

import json

from tests.conftest import RunProxy
from tests.raw_caller import RawCaller, raw_caller
from tests.raw_upstream import Conversation, raw_upstream

JSON = "Content-Type: application/json"
MERGED = """
[models]
list = "merged"
[[models.known]]
id = "gpt-4o"
context_length = 128000
"""


async def ids(caller: RawCaller) -> list[str]:
    """Return the listed models."""
    await caller.send("GET", "/v1/models")
    answer = await caller.answer()
    assert answer.status == 200
    assert answer.header("content-type") == ["application/json"]
    return [model["id"] for model in json.loads(await caller.body(answer))["data"]]


async def tell(talk: Conversation) -> None:
    """Answer with two models, as vLLM lists them."""
    data = [
        {"id": "gpt-4o", "owned_by": "vllm", "created": 5, "max_model_len": 4096, "root": None},
        {"id": "bge-m3-corp", "object": "model", "created": 6, "owned_by": None},
    ]
    await talk.answer(json.dumps({"object": "list", "data": data}).encode(), JSON)


async def fail(talk: Conversation) -> None:
    """Answer without a list."""
    await talk.answer(b'{"detail":"Not Found"}', JSON, status="404 Not Found")


async def test_the_lists_of_all_upstreams_become_one_under_callers_names(run_proxy: RunProxy) -> None:
    renamed = MERGED + '[[routes.models]]\nmatch = "bge-m3"\nupstream = "embed"\nrename = "bge-m3-corp"'
    async with (
        raw_upstream(tell) as upstream,
        run_proxy(upstream.url, more=renamed) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        assert await ids(caller) == ["gpt-4o", "bge-m3"]
        await caller.send("GET", "/v1/models/gpt-4o")
        assert json.loads(await caller.body(await caller.answer()))["context_length"] == 128000
    assert upstream.requests[0].header("authorization") == ["Bearer static-upstream-token"]
    assert len(upstream.requests) == 2  # one for each upstream, although the list was requested twice


async def test_upstreams_without_a_list_are_left_out(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(tell) as upstream,
        raw_upstream(fail) as silent,
        run_proxy(upstream.url, more=f'{MERGED}[upstreams.other]\nbase_url = "{silent.url}/v1"') as proxy,
        raw_caller(proxy.url) as caller,
    ):
        assert await ids(caller) == ["gpt-4o", "bge-m3-corp"]
    assert [line["upstream"] for line in proxy.lines if line["event"] == "model_list_failed"] == ["other"]


async def test_without_any_list_the_failure_is_returned(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(fail) as upstream,
        run_proxy(upstream.url, more='[models]\nlist = "merged"') as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("GET", "/v1/models")
        answer = await caller.answer()
        assert answer.status == 502
        assert json.loads(await caller.body(answer))["error"]["code"] == "upstream_bad_response"
