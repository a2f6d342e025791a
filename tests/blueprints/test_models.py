"""The list of models, and one of them, through the real service: relayed, or from the configuration."""

import json

import pytest

from tests.conftest import RunProxy
from tests.raw_caller import raw_caller
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
        await caller.send("GET", path)
        answer = await caller.answer()
        assert (answer.status, answer.header("content-type")) == (200, ["application/json"])
        models = json.loads(await caller.body(answer))["data"]
    assert [model["id"] for model in models] == ["BAAI/bge-m3", "gpt-4o"]
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
