"""`/openapi.json` and `/docs`: public, in two languages, and without any value of the configuration."""

import json
import re

import pytest

from tests.conftest import KEY, RunningProxy, RunProxy
from tests.raw_caller import RawAnswer, raw_caller
from tests.raw_upstream import Conversation, raw_upstream

NOWHERE = "http://127.0.0.1:1"
MORE = """
[chat]
[status]
key = "status-key-8f3a-5b20"
[[access.keys]]
name = "canary-caller"
key = "sk-canary-1234567890"
models = ["canary-model"]
[[models.known]]
id = "canary-listed"
"""


async def get(proxy: RunningProxy, path: str, *headers: str) -> tuple[RawAnswer, str]:
    """Send a request without a key."""
    async with raw_caller(proxy.url) as caller:
        await caller.send("GET", path, *headers, key=None)
        answer = await caller.answer()
        return answer, (await caller.body(answer)).decode()


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
async def test_it_does_not_reveal_the_configuration(run_proxy: RunProxy, path: str) -> None:
    async with run_proxy("http://canary-upstream.invalid", more=MORE) as proxy:
        answer, body = await get(proxy, path)
        assert answer.status == 200
        assert not re.search("canary|tester|corp|8f3a", body)
        assert KEY not in body


async def test_only_what_is_served_is_described(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE) as proxy:
        paths = json.loads((await get(proxy, "/openapi.json"))[1])["paths"]
        assert "/livez" in paths
        assert [path for path in paths if path.startswith(("/chat", "/status"))] == []
        _, page = await get(proxy, "/docs")
        assert "/chat/stream" not in page
    async with run_proxy(NOWHERE, more=MORE) as proxy:
        paths = json.loads((await get(proxy, "/openapi.json"))[1])["paths"]
        assert {"/chat/stream", "/status/events"} <= {*paths}
        assert "/chat/stream" in (await get(proxy, "/docs"))[1]


@pytest.mark.parametrize(
    ("path", "header", "lang"),
    [
        ("/docs", "Accept-Language: zh-CN,zh;q=0.9", "zh-CN"),
        ("/docs", "Accept-Language: fr", "en"),
        ("/docs?lang=zh", "Accept-Language: en", "zh-CN"),
        ("/docs?lang=xx", "Accept-Language: en", "en"),
    ],
)
async def test_the_page_is_in_the_readers_language(
    run_proxy: RunProxy, path: str, header: str, lang: str
) -> None:
    async with run_proxy(NOWHERE) as proxy:
        answer, body = await get(proxy, path, header)
        assert f'<html lang="{lang}">' in body
        assert ("转发到上游" in body) is (lang == "zh-CN")
        assert answer.header("vary") == ["Accept-Language"]


async def test_the_page_runs_and_loads_nothing(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE) as proxy:
        answer, body = await get(proxy, "/docs")
        (policy,) = answer.header("content-security-policy")
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "<script" not in body
        assert not re.search(r"\b(src|href)=\"https?://(?!platform\.openai\.com/docs)", body)


async def test_the_index_links_the_page(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE) as proxy:
        assert 'href="/docs"' in (await get(proxy, "/", "Accept: text/html"))[1]


async def test_paths_of_the_same_name_below_v1_are_relayed(run_proxy: RunProxy) -> None:
    async def answer(talk: Conversation) -> None:
        await talk.answer(b"{}", "Content-Type: application/json")

    async with (
        raw_upstream(answer) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        for path in ("/v1/docs", "/v1/openapi.json", "/agent/api/llm_proxy/v1/docs"):
            await caller.send("GET", path)
            found = await caller.answer()
            assert (found.status, await caller.body(found)) == (200, b"{}")
        targets = [request.target for request in upstream.requests]
    assert targets == [b"/v1/docs", b"/v1/openapi.json", b"/v1/docs"]
