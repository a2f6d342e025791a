"""Callers in browsers: which pages may call, the headers that they get, and that nothing else changes."""

import pytest

from tests.conftest import RunProxy
from tests.raw_caller import RawAnswer, RawCaller, raw_caller
from tests.raw_upstream import Conversation, raw_upstream

PAGE = "https://app.example"
CORS = f'[cors]\norigins = ["{PAGE}", "http://localhost:3000"]\n'
CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"
WILDCARD = '[cors]\norigins = ["*"]\n'


async def permissive(talk: Conversation) -> None:
    """Answer with headers that would allow every page to read."""
    await talk.answer(
        b"{}", "Access-Control-Allow-Origin: *", "Access-Control-Allow-Credentials: true", "Vary: Accept"
    )


async def ask(
    caller: RawCaller, origin: str, path: str = CHAT, key: str | None = "sk-test-7c1f0a"
) -> RawAnswer:
    """Send a request of a page."""
    await caller.send("POST", path, JSON, f"Origin: {origin}", body=b"{}", key=key)
    answer = await caller.answer()
    await caller.body(answer)
    return answer


async def preflight(caller: RawCaller, origin: str, path: str = CHAT) -> RawAnswer:
    """Send the preflight request of a browser."""
    await caller.write(
        (
            f"OPTIONS {path} HTTP/1.1\r\nHost: proxy.localhost\r\nOrigin: {origin}\r\n"
            "Access-Control-Request-Method: POST\r\n"
            "Access-Control-Request-Headers: authorization, content-type, x-stainless-lang\r\n\r\n"
        ).encode()
    )
    return await caller.answer()


def allowed(answer: RawAnswer) -> list[str]:
    """Return the origin that may read the response."""
    return answer.header("access-control-allow-origin")


@pytest.mark.parametrize("path", [CHAT, "/agent/api/llm_proxy/v1/chat/completions", "/embeddings", "/v1/any"])
async def test_a_configured_page_may_call(run_proxy: RunProxy, path: str) -> None:
    async with (
        raw_upstream(permissive) as upstream,
        run_proxy(upstream.url, more=CORS) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        told = await preflight(caller, PAGE, path)
        assert (told.status, allowed(told)) == (204, [PAGE])
        assert "POST" in told.header("access-control-allow-methods")[0]
        headers = told.header("access-control-allow-headers")[0].lower()
        assert {name.strip() for name in headers.split(",")} == {
            "authorization",
            "content-type",
            "x-stainless-lang",
        }
        assert told.header("access-control-max-age") == ["600"]
        assert not upstream.requests
        answer = await ask(caller, PAGE, path)
        assert (answer.status, allowed(answer)) == (200, [PAGE])
        assert "x-request-id" in answer.header("access-control-expose-headers")[0].lower()
        assert "Origin" in ", ".join(answer.header("vary"))
        assert not upstream.requests[0].header("origin")


async def test_any_other_page_may_not_call_whatever_the_upstream_allows(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(permissive) as upstream,
        run_proxy(upstream.url, more=CORS) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        for origin in (
            "https://evil.example",
            "https://app.example.evil.example",
            "http://app.example",
            "null",
        ):
            for answer in (await preflight(caller, origin), await ask(caller, origin)):
                assert not allowed(answer)
                assert not answer.header("access-control-allow-credentials")


async def test_a_key_is_always_required_and_the_error_is_readable(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(permissive) as upstream,
        run_proxy(upstream.url, more=CORS) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        answer = await ask(caller, PAGE, key="sk-wrong")
        assert (answer.status, allowed(answer)) == (401, [PAGE])


async def test_with_a_star_every_page_may_call(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(permissive) as upstream,
        run_proxy(upstream.url, more=WILDCARD) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        answer = await ask(caller, "https://anything.example")
        assert allowed(answer) in (["*"], ["https://anything.example"])
        assert not answer.header("access-control-allow-credentials")


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/readyz"])
async def test_no_page_may_call_operational_routes(run_proxy: RunProxy, path: str) -> None:
    async with (
        raw_upstream(permissive) as upstream,
        run_proxy(upstream.url, more=WILDCARD) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("GET", path, f"Origin: {PAGE}", key=None)
        answer = await caller.answer()
        assert (answer.status, allowed(answer)) == (200, [])


async def test_without_cors_options_is_relayed_without_the_cors_headers_of_the_upstream(
    run_proxy: RunProxy,
) -> None:
    async with (
        raw_upstream(permissive) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("OPTIONS", CHAT, f"Origin: {PAGE}")
        answer = await caller.answer()
        await caller.body(answer)
        assert answer.status == 200
        assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]
        assert (await preflight(caller, PAGE)).status == 401  # no key
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("access", ['mode = "open"', ""])
async def test_without_cors_a_preflight_is_never_relayed(run_proxy: RunProxy, access: str) -> None:
    async with (
        raw_upstream(permissive) as upstream,
        run_proxy(upstream.url, access=access) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("OPTIONS", CHAT, "Access-Control-Request-Method: POST")
        answer = await caller.answer()
        assert answer.status == 204
        assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]
        assert not upstream.requests


async def test_a_malformed_request_is_rejected_first(run_proxy: RunProxy) -> None:
    async with raw_upstream(permissive) as upstream, run_proxy(upstream.url, more=WILDCARD) as proxy:
        async with raw_caller(proxy.url) as caller:
            await caller.write(
                b"OPTIONS /v1/models HTTP/1.1\r\nHost: p\r\nOrigin: https://a.example\r\n"
                b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            )
            assert (await caller.answer()).status == 400
        async with raw_caller(proxy.url) as caller:
            assert (await preflight(caller, PAGE, "/v1/%2e%2e/x")).status == 400


async def test_no_page_may_read_a_rejected_method_outside_the_api(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(permissive) as upstream,
        run_proxy(upstream.url, more=WILDCARD) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        answer = await ask(caller, PAGE, "/metrics")
        assert (answer.status, allowed(answer)) == (405, [])
