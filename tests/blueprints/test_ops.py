"""Probes: alive while the event loop runs, ready while requests can be served, and public."""

import pytest

from tests.conftest import RunProxy
from tests.loopback import until
from tests.raw_caller import RawCaller, raw_caller
from tests.raw_upstream import Conversation, raw_upstream

NOWHERE = "http://127.0.0.1:1"
LIVE = ("/livez",)
READY = ("/readyz", "/healthz")


async def probe(caller: RawCaller, path: str, *headers: str, key: str | None = None) -> tuple[int, bytes]:
    """Return the status and the body of a probe; its headers are always the same."""
    await caller.send("GET", path, *headers, key=key)
    answer = await caller.answer()
    assert answer.header("content-type") == ["text/plain; charset=utf-8"]
    assert answer.header("cache-control") == ["no-store"]
    assert answer.header("x-request-id")
    return answer.status, await caller.body(answer)


@pytest.mark.parametrize("path", LIVE + READY)
async def test_a_probe_accepts_no_key_and_a_wrong_key(run_proxy: RunProxy, path: str) -> None:
    async with run_proxy(NOWHERE) as proxy, raw_caller(proxy.url) as caller:
        assert await probe(caller, path) == (200, b"ok\n")
        assert await probe(caller, path, key="wrong") == (200, b"ok\n")
        assert await probe(caller, path, "X-Forwarded-For: 10.0.0.1", "api-key: a") == (200, b"ok\n")


@pytest.mark.parametrize("path", LIVE + READY)
async def test_a_probe_may_use_head(run_proxy: RunProxy, path: str) -> None:
    async with run_proxy(NOWHERE) as proxy, raw_caller(proxy.url) as caller:
        await caller.send("HEAD", path, key=None)
        assert (await caller.answer()).status == 200
        # The connection is the same, so no body came in between.
        assert await probe(caller, path) == (200, b"ok\n")


async def test_a_draining_service_is_alive_and_not_ready(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE) as proxy, raw_caller(proxy.url) as caller:
        proxy.drain.started = True
        for path in LIVE:
            assert await probe(caller, path) == (200, b"ok\n")
        for path in READY:
            assert await probe(caller, path) == (503, b"draining\n")


async def test_a_service_without_a_token_is_alive_and_not_ready(run_proxy: RunProxy) -> None:
    async def refuse(talk: Conversation) -> None:
        await talk.answer(b"{}", status="500 No")

    async with raw_upstream(refuse) as issuer:
        credential = f'source = "http"\nurl = "{issuer.url}/token"\ntoken = "token"'
        async with run_proxy(NOWHERE, credential=credential) as proxy, raw_caller(proxy.url) as caller:
            for path in LIVE:
                assert await probe(caller, path) == (200, b"ok\n")
            await until(lambda: not proxy.services.credentials["corp"].source.healthy)
            for path in READY:
                assert await probe(caller, path) == (503, b"no token\n")


async def test_a_service_that_still_waits_for_its_first_token_is_ready(run_proxy: RunProxy) -> None:
    async def say_nothing(talk: Conversation) -> None:
        await talk.caller_left()

    async with raw_upstream(say_nothing) as issuer:
        credential = f'source = "http"\nurl = "{issuer.url}/token"\ntoken = "token"'
        async with run_proxy(NOWHERE, credential=credential) as proxy, raw_caller(proxy.url) as caller:
            await until(lambda: len(issuer.requests) == 1)
            for path in READY:
                assert await probe(caller, path) == (200, b"ok\n")


async def test_a_probe_sends_nothing_to_the_upstream(run_proxy: RunProxy) -> None:
    async def answer(talk: Conversation) -> None:
        await talk.answer(b"{}")

    async with (
        raw_upstream(answer) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        for path in LIVE + READY:
            await probe(caller, path)
        assert upstream.connections == 0


async def test_probes_are_logged_at_debug_level_only(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE) as proxy, raw_caller(proxy.url) as caller:
        for path in LIVE + READY:
            await probe(caller, path)
        await until(lambda: len(proxy.exchanges) == len(LIVE + READY))
        assert {line["log_level"] for line in proxy.exchanges} == {"debug"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE"])
async def test_a_probe_rejects_other_methods(run_proxy: RunProxy, method: str) -> None:
    async with run_proxy(NOWHERE) as proxy, raw_caller(proxy.url) as caller:
        for path in LIVE + READY:
            await caller.send(method, path, key=None)
            answer = await caller.answer()
            assert answer.status == 405
            assert answer.header("allow") == ["GET, HEAD, OPTIONS"]
            assert b'"method_not_allowed"' in await caller.body(answer)


@pytest.mark.parametrize(
    ("host", "access", "status"),
    [
        ("evil.example", "", 403),
        ("evil.example:80", "", 403),
        ("127.0.0.1.evil.example", "", 403),
        ("localhost", "", 200),
        ("127.0.0.1:9", "", 200),
        ("metrics.corp.example", 'hosts = ["metrics.corp.example"]', 200),
    ],
)
async def test_metrics_reject_a_page_that_rebinds_its_name(
    run_proxy: RunProxy, host: str, access: str, status: int
) -> None:
    async with run_proxy(NOWHERE, access=access) as proxy, raw_caller(proxy.url) as caller:
        await caller.write(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = await caller.answer()
        body = await caller.body(answer)
    assert answer.status == status
    assert (b"llm_proxy_" in body) is (status == 200)
