"""The total size of held bodies and messages is limited, over all callers and for each caller."""

import asyncio
import json

import pytest
from aiohttp import web
from wsproto.connection import CLIENT, Connection
from wsproto.events import TextMessage

from tests.conftest import KEY, RunProxy
from tests.loopback import until
from tests.pace import PATIENCE
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream
from tests.socket_upstream import socket_upstream

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"
BODY = b'{"a": "%b"}' % (b"x" * 50_000)
HEAD = (
    f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    f"{JSON}\r\nContent-Length: {len(BODY)}\r\n\r\n"
).encode()
HANDSHAKE = (
    "GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    f"Authorization: Bearer {KEY}\r\n\r\n"
).encode()
TEXT = "€" * 10_000
"""A message whose bytes are more than its characters."""


def beginning(text: str) -> bytes:
    """A frame with the beginning of a message."""
    return Connection(CLIENT).send(TextMessage(text, message_finished=False))


async def ok(talk: Conversation) -> None:
    """Answer anything."""
    await talk.answer(b"{}", JSON)


@pytest.mark.parametrize(
    ("limit", "status", "code"),
    [("total_held_bytes", 503, "server_overloaded"), ("held_bytes_per_caller", 429, "rate_limit_exceeded")],
)
async def test_a_request_over_the_limit_is_rejected_and_the_others_are_served(
    run_proxy: RunProxy, limit: str, status: int, code: str
) -> None:
    more = f"[limits]\n{limit} = {2 * len(BODY)}"
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        raw_caller(proxy.url) as one,
        raw_caller(proxy.url) as two,
        raw_caller(proxy.url) as three,
    ):
        held = proxy.services.worker.held
        for caller in (one, two):
            await caller.write(HEAD + BODY[:-1])
        await until(lambda: held.total == 2 * len(BODY) - 2)

        await three.send("POST", CHAT, JSON, body=BODY)
        refused = await three.answer()
        assert (refused.status, refused.header("retry-after")) == (status, ["1"])
        assert json.loads(await three.body(refused))["error"]["code"] == code

        for caller in (one, two):
            await caller.write(BODY[-1:])
            answer = await caller.answer()
            assert answer.status == 200
            await caller.body(answer)
        await until(lambda: held.total == 0)
        assert not held.by_caller


async def test_the_bytes_of_a_caller_who_leaves_are_released(run_proxy: RunProxy) -> None:
    async with raw_upstream(ok) as upstream, run_proxy(upstream.url) as proxy:
        held = proxy.services.worker.held
        async with raw_caller(proxy.url) as caller:
            await caller.write(HEAD + BODY[:-1])
            await until(lambda: held.total == len(BODY) - 1)
        await until(lambda: held.total == 0)


@pytest.mark.parametrize(
    ("limit", "code", "outcome"),
    [("total_held_bytes", 1013, "server_overloaded"), ("held_bytes_per_caller", 1008, "rate_limit_exceeded")],
)
async def test_the_messages_of_websockets_count_beside_the_bodies_of_requests(
    run_proxy: RunProxy, limit: str, code: int, outcome: str
) -> None:
    received = asyncio.Queue[str]()

    async def script(socket: web.WebSocketResponse) -> None:
        async for message in socket:
            received.put_nowait(message.data)

    size = len(TEXT.encode())
    more = f"[limits]\n{limit} = {len(BODY) + 2 * size}"
    async with (
        socket_upstream(script) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        raw_caller(proxy.url) as request,
        raw_caller(proxy.url) as one,
        raw_caller(proxy.url) as two,
    ):
        held = proxy.services.worker.held
        await request.write(HEAD + BODY[:-1])
        for caller in (one, two):
            await caller.write(HANDSHAKE)
            assert (await caller.answer()).status == 101
        await one.write(beginning(TEXT))
        await until(lambda: held.total == len(BODY) - 1 + size)
        await one.write(b"\x80\x81\0\0\0\0.")
        async with asyncio.timeout(PATIENCE):
            assert await received.get() == TEXT + "."
        await until(lambda: held.total == len(BODY) - 1)

        await one.write(beginning(TEXT))
        await until(lambda: held.total == len(BODY) - 1 + size)
        await two.write(beginning(TEXT + "...."))
        close = await two.closed()
        await until(lambda: bool(proxy.exchanges))
        assert proxy.exchanges[0]["outcome"] == outcome
        assert int.from_bytes(close.partition(b"\x88")[2][1:3]) == code
        await until(lambda: held.total == len(BODY) - 1 + size)
        for caller in (one, request):
            caller.reset()
        await until(lambda: held.total == 0)
        assert not held.by_caller
