"""The list of models through the real service: relayed, configured, merged; and one of them."""

import json

import pytest

from tests.conftest import RunProxy
from tests.raw_caller import RawCaller, raw_caller
from tests.raw_upstream import Conversation, raw_upstream

JSON = "Content-Type: application/json"
CONFIGURED = """
[models]
list = "configured"
[[models.known]]
id = "BAAI/bge-m3"
context_length = 8192
[[models.known]]
id = "gpt-4o"
owned_by = "corp"
"""
MERGED = """
[models]
list = "merged"
[[models.known]]
id = "gpt-4o"
context_length = 128000
"""


async def ids(caller: RawCaller, path: str = "/v1/models") -> list[str]:
    """Return the listed models."""
    await caller.send("GET", path)
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


async def test_by_default_the_list_is_relayed_byte_for_byte(run_proxy: RunProxy) -> None:
    async def answer(talk: Conversation) -> None:
        await talk.answer(b'{ "data":[ ] , "x":1.10}', JSON)

    async with (
        raw_upstream(answer) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("GET", "/v1/models")
        assert await caller.body(await caller.answer()) == b'{ "data":[ ] , "x":1.10}'


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/v1/v1/models", "/agent/api/llm_proxy/v1/models"])
async def test_a_configured_list_needs_no_upstream(run_proxy: RunProxy, path: str) -> None:
    async with run_proxy("http://127.0.0.1:9", more=CONFIGURED) as proxy, raw_caller(proxy.url) as caller:
        assert await ids(caller, path) == ["BAAI/bge-m3", "gpt-4o"]
    assert proxy.exchanges[-1]["endpoint"] == "models"


@pytest.mark.parametrize("name", ["BAAI/bge-m3", "BAAI%2Fbge-m3"])
async def test_one_model_is_found_by_its_name(run_proxy: RunProxy, name: str) -> None:
    async with run_proxy("http://127.0.0.1:9", more=CONFIGURED) as proxy, raw_caller(proxy.url) as caller:
        await caller.send("GET", f"/v1/models/{name}")
        assert json.loads(await caller.body(await caller.answer())) == {
            "id": "BAAI/bge-m3", "object": "model", "created": 0, "owned_by": "llm-token-proxy",
            "context_length": 8192, "max_model_len": 8192,
        }  # fmt: skip
        await caller.send("GET", "/v1/models/nope")
        answer = await caller.answer()
        assert answer.status == 404
        error = json.loads(await caller.body(answer))["error"]
        assert (error["message"], error["param"]) == ("the model does not exist", "model")


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


async def test_other_methods_are_still_relayed(run_proxy: RunProxy) -> None:
    async def answer(talk: Conversation) -> None:
        await talk.answer(b'{"deleted":true}', JSON)

    async with (
        raw_upstream(answer) as upstream,
        run_proxy(upstream.url, more=CONFIGURED) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("DELETE", "/v1/models/ft:x")
        assert await caller.body(await caller.answer()) == b'{"deleted":true}'
