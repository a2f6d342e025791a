"""WebSockets as `serve` runs them: the close of the caller is reported, and nothing is left behind."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from hypercorn.protocol.events import Data, Event

from proxy.cli.server import load_server_config, open_sockets
from proxy.server.serve import serve
from proxy.server.websocket import PARSED_AT_ONCE, CloseReportingStream
from tests.pace import PATIENCE

Message = dict[str, Any]


@asynccontextmanager
async def served(ping_interval: float) -> AsyncIterator[tuple[str, asyncio.Queue[Message]]]:
    """Serve an application that accepts every WebSocket; yield its address and the last messages."""
    told, stop = asyncio.Queue[Message](), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                await send({"type": (await receive())["type"] + ".complete"})
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        told.put_nowait(message)

    config = load_server_config("127.0.0.1:0")
    config.websocket_ping_interval = ping_interval
    (listener,) = open_sockets(config.bind, 8)
    address = "http://{}:{}".format(*listener.getsockname())
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(app, config, [listener], stop.wait))
        yield address, told
        stop.set()


@pytest.mark.parametrize(("code", "told_as"), [(1000, 1000), (1001, 1001), (4999, 4999)])
async def test_the_callers_close_is_reported(code: int, told_as: int) -> None:
    async with served(60) as (url, told), aiohttp.ClientSession() as session:
        async with session.ws_connect(url) as caller:
            await caller.close(code=code, message="完".encode())
            assert caller.close_code == code
        message = await told.get()
    assert message == {"type": "websocket.disconnect", "code": told_as, "reason": "完"}


@pytest.mark.parametrize("name", ["Connection", "Sec-WebSocket-Protocol"])
async def test_a_handshake_beyond_ascii_is_rejected(name: str) -> None:
    async with served(60) as (url, _):
        answer = await handshake(url, f"{name}: a, \xe9")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"beyond ASCII" in answer


async def test_a_stream_that_fails_closes_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(stream: CloseReportingStream, event: Event) -> None:
        raise ValueError

    monkeypatch.setattr(CloseReportingStream, "handle", fail)
    async with served(60) as (url, _):
        assert await handshake(url) == b""


async def handshake(url: str, *lines: str) -> bytes:
    """Send a handshake; everything that arrives until the server closes."""
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    head = ["GET / HTTP/1.1", "Host: x", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    head += ["Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *lines, "", ""]
    writer.write("\r\n".join(head).encode("latin-1"))
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    return answer


async def test_no_compression_is_accepted() -> None:
    async with (
        served(60) as (url, _),
        aiohttp.ClientSession() as session,
        session.ws_connect(url, compress=15) as caller,
    ):
        assert caller.compress == 0
        assert "Sec-WebSocket-Extensions" not in caller._response.headers


async def test_frames_that_complete_no_message_let_others_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turn, parsed = 0, Counter[int]()
    handle = CloseReportingStream.handle

    async def count(stream: CloseReportingStream, event: Event) -> None:
        if isinstance(event, Data):
            parsed[turn] += len(event.data)
        await handle(stream, event)

    monkeypatch.setattr(CloseReportingStream, "handle", count)
    frames = b"\x01\x81\0\0\0\0a" + b"\x00\x80\0\0\0\0" * (4 * PARSED_AT_ONCE)
    close = b"\x88\x82\0\0\0\0\x03\xe8"
    async with (
        served(60) as (url, told),
        aiohttp.ClientSession() as session,
        session.ws_connect(url) as caller,
    ):
        connection = caller._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.write(frames + close)
        while told.empty():
            await asyncio.sleep(0)
            turn += 1
    assert sum(parsed.values()) == len(frames + close)
    assert max(parsed.values()) <= 2 * PARSED_AT_ONCE  # the end of one read, and the beginning of the next


async def test_a_lost_caller_is_reported_as_lost() -> None:
    async with served(60) as (url, told), aiohttp.ClientSession() as session:
        caller = await session.ws_connect(url)
        caller._response.close()
        message = await told.get()
    assert message["code"] == 1006


async def test_pings_go_on_while_it_is_silent() -> None:
    async with (
        served(0.05) as (url, _),
        aiohttp.ClientSession() as session,
        session.ws_connect(url, autoping=False) as caller,
    ):
        assert [(await caller.receive()).type for _ in range(3)] == [WSMsgType.PING] * 3


async def test_the_server_stops_at_once_after_a_socket_has_closed() -> None:
    async with asyncio.timeout(PATIENCE):
        async with served(60) as (url, told), aiohttp.ClientSession() as session:
            async with session.ws_connect(url) as caller:
                await caller.close()
            await told.get()
