"""The page at `/`, which only browsers get: its links lead to the pages of this configuration."""

import json
import re

import pytest

from proxy.wire.paths import BASE_URLS
from tests.conftest import RunProxy
from tests.raw_caller import raw_caller

NOWHERE = "http://127.0.0.1:1"
BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CHAT = '[chat]\nmodel = "x1"\n'


async def page(run_proxy: RunProxy, *headers: str, more: str = "") -> tuple[str, dict[str, str]]:
    """Return the page and its headers."""
    async with run_proxy(NOWHERE, more=more) as proxy, raw_caller(proxy.url) as caller:
        await caller.send("GET", "/", *headers, key=None)
        answer = await caller.answer()
        assert answer.status == 200
        names = ("content-type", "content-security-policy", "x-content-type-options", "cache-control", "vary")
        return (await caller.body(answer)).decode(), {name: answer.header(name)[0] for name in names}


async def test_a_browser_gets_links_to_what_is_served(run_proxy: RunProxy) -> None:
    text, headers = await page(run_proxy, BROWSER, more=CHAT)
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "<h1>LLM token proxy</h1>" in text
    links = re.findall(r'href="([^"]+)"', text)
    assert "/chat/" in links
    assert "<code>/v1</code>" in text
    without, _ = await page(run_proxy, BROWSER)
    assert "/chat/" not in without


async def test_nothing_runs_on_the_page_and_its_style_is_allowed(run_proxy: RunProxy) -> None:
    text, headers = await page(run_proxy, BROWSER)
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["vary"] == "Accept, Accept-Language"
    assert "<script" not in text
    assert " on" not in re.sub(r">[^<]*<", "><", text)


@pytest.mark.parametrize(
    ("language", "lang"), [("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"), ("en-US,en;q=0.9", "en"), ("fr", "en")]
)
async def test_the_page_is_in_the_readers_language(run_proxy: RunProxy, language: str, lang: str) -> None:
    text, _ = await page(run_proxy, BROWSER, f"Accept-Language: {language}", more=CHAT)
    assert f'<html lang="{lang}">' in text
    assert ("对话" in text) is (lang == "zh-CN")


@pytest.mark.parametrize(
    ("method", "accept"),
    [
        ("GET", None),
        ("GET", "Accept: */*"),
        ("GET", "Accept: application/json"),
        ("GET", "Accept: text/html;q=0, */*"),
        ("POST", BROWSER),
        ("OPTIONS", BROWSER),
        ("DELETE", None),
    ],
)
async def test_every_other_path_is_404(run_proxy: RunProxy, method: str, accept: str | None) -> None:
    async with run_proxy(NOWHERE) as proxy, raw_caller(proxy.url) as caller:
        await caller.send(method, "/", *([accept] if accept else []), body=b"{}" if method == "POST" else b"")
        answer = await caller.answer()
        assert answer.status == 404
        assert json.loads(await caller.body(answer))["error"]["code"] == "not_found"


async def test_a_head_request_gets_no_body(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE) as proxy, raw_caller(proxy.url) as caller:
        await caller.send("HEAD", "/", BROWSER, key=None)
        assert (await caller.answer()).status == 200
        await caller.send("GET", "/livez", key=None)
        assert (await caller.answer()).status == 200


@pytest.mark.parametrize("path", BASE_URLS)
@pytest.mark.parametrize("query", ["", "?key=x"])
async def test_a_base_url_tells_a_browser_what_it_is_for(run_proxy: RunProxy, path: str, query: str) -> None:
    async with run_proxy(NOWHERE) as proxy, raw_caller(proxy.url) as caller:
        for language, word in (("en", "Enter it in the client"), ("zh-CN", "请把它填入客户端")):
            await caller.send("GET", path + query, BROWSER, f"Accept-Language: {language}", key=None)
            answer = await caller.answer()
            text = (await caller.body(answer)).decode()
            assert answer.status == 404
            assert word in text
            assert "OPENAI_BASE_URL" in text
            assert answer.header("content-security-policy")[0].startswith("default-src 'none'")
            assert 'href="/docs"' in text
        await caller.send("GET", "/docs", BROWSER, key=None)
        assert (await caller.answer()).status == 200
    assert [line["outcome"] for line in proxy.exchanges[:2]] == ["not_found"] * 2
    assert "base URL" in proxy.exchanges[0]["reason"]


@pytest.mark.parametrize("path", BASE_URLS)
@pytest.mark.parametrize(
    ("method", "accept"), [("GET", ()), ("GET", ("Accept: */*",)), ("POST", (BROWSER,)), ("PUT", ())]
)
async def test_a_base_url_tells_a_client_what_it_is_for(
    run_proxy: RunProxy, path: str, method: str, accept: tuple[str, ...]
) -> None:
    async with run_proxy(NOWHERE) as proxy, raw_caller(proxy.url) as caller:
        await caller.send(method, path, *accept)
        answer = await caller.answer()
        error = json.loads(await caller.body(answer))["error"]
    assert (answer.status, error["type"], error["code"]) == (404, "invalid_request_error", "not_found")
    assert "base_url" in error["message"]
    assert "/docs" in error["message"]
