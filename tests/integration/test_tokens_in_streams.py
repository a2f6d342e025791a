"""Tokens and streams: an expired token does not end a stream that has started."""

import asyncio

from tests.conftest import RunProxy
from tests.loopback import until
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream

CHAT = "/v1/chat/completions"


def credential(issuer: str) -> str:
    """Return a credential with a token endpoint."""
    return f"""
        source = "http"
        url = "{issuer}/token"
        token = "access_token"
        expires = [{{ path = "expires_in", as = "seconds" }}]
    """


async def issue(talk: Conversation) -> None:
    """Issue a token that is valid for a quarter of a second."""
    await talk.answer(b'{"access_token": "short", "expires_in": 0.25}', "Content-Type: application/json")


async def test_a_stream_outlives_its_token(run_proxy: RunProxy) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"data: 1\n\n")
        await go_on.wait()
        await talk.chunk(b"data: 2\n\ndata: [DONE]\n\n")
        await talk.end()

    async with (
        raw_upstream(issue) as issuer,
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=credential(issuer.url)) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, body=b"{}")
        await caller.answer()
        assert await caller.chunk() == b"data: 1\n\n"
        source = proxy.services.credentials["corp"].source
        await until(lambda: source.reading().state == "expired")
        go_on.set()
        assert await caller.chunk() == b"data: 2\n\ndata: [DONE]\n\n"
        assert await caller.chunk() == b""


async def test_nothing_is_sent_again_after_the_response_has_started(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"data: 1\n\n")
        await talk.chunk(b'data: {"error": {"code": 401, "message": "token expired"}}\n\n')
        await talk.end()

    async with (
        raw_upstream(issue) as issuer,
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=credential(issuer.url)) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, body=b"{}")
        body = await caller.body(await caller.answer())
    assert body.startswith(b"data: 1\n\ndata: {")
    assert len(upstream.requests) == 1
    assert proxy.exchanges[-1].get("replays") is None
