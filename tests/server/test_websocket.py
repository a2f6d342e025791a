"""WebSockets as `serve` runs them: the close of the caller is reported, and nothing is left behind."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from hypercorn.protocol.events import Data, Event
from structlog.testing import capture_logs

from proxy.cli.server import load_server_config, open_sockets
from proxy.server import tcp
from proxy.server.config import ServerConfig
from proxy.server.http1 import Connection
from proxy.server.serve import serve
from proxy.server.websocket import PARSED_AT_ONCE, CloseReportingStream
from tests.loopback import TURNS, until
from tests.pace import PATIENCE
from tests.server.conftest import served as served_app

Message = dict[str, Any]


@asynccontextmanager
async def served(
    ping_interval: float, config: ServerConfig | None = None
) -> AsyncIterator[tuple[str, asyncio.Queue[Message]]]:
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

    config = config or load_server_config("127.0.0.1:0")
    config.websocket_ping_interval = ping_interval
    (listener,) = open_sockets(config.bind, 8)
    address = "http://{}:{}".format(*listener.getsockname())
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(app, config, [listener], stop.wait))
        yield address, told
        stop.set()


CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"


def frame(data: bytes) -> bytes:
    """A short text message of a caller."""
    return b"\x81%c\0\0\0\0" % (0x80 | len(data)) + data


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


def handshake_with(*lines: str) -> bytes:
    """The head of a handshake with these further lines."""
    head = ["GET / HTTP/1.1", "Host: x", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    head += ["Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1")


async def handshake(url: str, *lines: str, behind: bytes = b"") -> bytes:
    """Send a handshake and bytes behind it; everything that arrives until the server closes."""
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    writer.write(handshake_with(*lines) + behind)
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(PATIENCE):
            while data := await reader.read(65536):
                answer += data
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


LONG = b"\x81\xff" + (800_000).to_bytes(8) + bytes(4) + "a€😀".encode() * 100_000


@pytest.mark.parametrize("frames", [frame(b"a") * 20, LONG], ids=["messages", "one message"])
async def test_messages_wait_with_the_caller_and_not_in_memory(
    monkeypatch: pytest.MonkeyPatch, frames: bytes
) -> None:
    read, read_ahead = 0, list[int]()
    pass_on = CloseReportingStream._pass_on

    async def count(stream: CloseReportingStream, *, more: bool) -> None:
        nonlocal read
        read += 1
        assert sum(map(len, stream._pieces)) <= PARSED_AT_ONCE
        await pass_on(stream, more=more)

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for received in range(20):
            for _ in range(TURNS):
                await asyncio.sleep(0)
            read_ahead.append(read - received)
            await receive()

    monkeypatch.setattr(CloseReportingStream, "_pass_on", count)
    async with served_app(app) as server:
        caller = await server.connect()
        caller.writer.write(handshake_with() + frames)
        await caller.rest()
        caller.writer.close()
    assert max(read_ahead) <= 2  # one in the queue, and one that waits for room in it


async def test_a_long_message_arrives_in_pieces() -> None:
    received = asyncio.Queue[Message]()

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            received.put_nowait(await receive())

    async with served_app(app) as server:
        caller = await server.connect()
        caller.writer.write(handshake_with() + LONG + b"\x02\x81\0\0\0\0a" + b"\x80\x81\0\0\0\0b")
        pieces = list[str]()
        async with asyncio.timeout(PATIENCE):
            while (message := await received.get())["more"]:
                pieces.append(message["text"])
            assert "".join(pieces) + message["text"] == "a€😀" * 100_000
            data = b""
            while (message := await received.get())["more"]:
                data += message["bytes"]
            assert data + message["bytes"] == b"ab"
        caller.writer.close()


async def test_a_lost_caller_is_reported_as_lost() -> None:
    async with served(60) as (url, told), aiohttp.ClientSession() as session:
        caller = await session.ws_connect(url)
        caller._response.close()
        message = await told.get()
    assert message["code"] == 1006


@pytest.mark.parametrize("frames", [3, 1000])
async def test_an_application_that_reads_nothing_is_cancelled_when_its_caller_has_left(
    monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    cancelled, is_paused = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr("proxy.server.websocket.LEFT_SECONDS", 0.0)
    pause = Connection.pause_reading

    def pause_reading(connection: Connection) -> None:
        is_paused.set()
        pause(connection)

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    monkeypatch.setattr(Connection, "pause_reading", pause_reading)
    async with served_app(app) as server:
        caller = await server.connect()
        caller.writer.write(handshake_with())
        await caller.head()
        caller.writer.write((b"\x82\xfe\x04\0\0\0\0\0" + bytes(1024)) * frames)
        if frames > 3:
            async with asyncio.timeout(PATIENCE):
                await is_paused.wait()
        tcp.prepare_reset(caller.writer.get_extra_info("socket"))  # as after a ping to a caller who has left
        caller.writer.transport.abort()
        async with asyncio.timeout(PATIENCE):
            await cancelled.wait()


async def test_frames_before_the_answer_wait_for_it() -> None:
    received = asyncio.Queue[Message]()

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            received.put_nowait(message)

    async with served_app(app) as server:
        caller = await server.connect()
        caller.writer.write(handshake_with() + frame(b"a"))
        assert (await caller.head()).startswith(b"HTTP/1.1 101 ")
        async with asyncio.timeout(PATIENCE):
            assert (await received.get())["text"] == "a"
        caller.writer.close()


async def test_a_caller_who_leaves_before_the_answer_is_reported_although_frames_wait() -> None:
    told = asyncio.Queue[Message]()

    async def app(scope: Message, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        told.put_nowait(await receive())

    async with served_app(app) as server:
        caller = await server.connect()
        caller.writer.write(handshake_with() + frame(b"a"))
        caller.writer.close()
        async with asyncio.timeout(PATIENCE):
            assert (await told.get())["type"] == "websocket.disconnect"


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\x01a", 1002),  # not masked
        (b"\xc1\x81\0\0\0\0a", 1002),  # a reserved bit
        (b"\x83\x81\0\0\0\0a", 1002),  # an unknown opcode
        (b"\x80\x81\0\0\0\0a", 1002),  # a continuation of nothing
        (b"\x89\xfe\0\x7e\0\0\0\0" + bytes(126), 1002),  # a ping of more than 125 bytes
        (b"\x09\x80\0\0\0\0", 1002),  # a fragment of a ping
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),  # a close with 1005
        (b"\x88\x81\0\0\0\0\x03", 1002),  # a close with half a code
        (frame(b"\xff"), 1007),
        (b"\x88\x83\0\0\0\0\x03\xe8\xff", 1007),  # a reason that is not UTF-8
    ],
)
@pytest.mark.parametrize("behind", [b"", frame(b"a") * PARSED_AT_ONCE])
async def test_a_violation_is_answered_with_a_close_frame(frames: bytes, code: int, behind: bytes) -> None:
    with capture_logs() as log:
        async with served(60) as (url, told):
            answer = await handshake(url, behind=frame(b"a") + frames + behind)
            message = await told.get()
    close = answer.partition(b"\r\n\r\n")[2].removeprefix(b"\x89\0")  # the first ping
    assert close[:1] == b"\x88"
    assert len(close) == 2 + close[1]
    assert int.from_bytes(close[2:4]) == code
    assert message["code"] == code
    assert log == []


@pytest.mark.parametrize("size", [0, 100_000])
@pytest.mark.parametrize(
    "data", [bytes(11), "😀".encode() * 3], ids=["ASCII", "few characters of many bytes"]
)
async def test_a_message_that_is_too_large_is_answered_while_the_caller_sends_it(
    monkeypatch: pytest.MonkeyPatch, data: bytes, size: int
) -> None:
    monkeypatch.setattr("proxy.server.websocket.BUFFER_BYTES", 1000)
    config = load_server_config("127.0.0.1:0")
    config.websocket_max_message_size = 10
    head = b"\x81\xff" + (10**6).to_bytes(8) + bytes(4)
    async with served(60, config) as (url, told):
        answer = await handshake(url, behind=head + data + bytes(size))
        message = await told.get()
    assert answer.endswith(b"\x88\x02\x03\xf1")
    assert message["code"] == 1009


async def test_bytes_behind_a_close_frame_are_dropped() -> None:
    with capture_logs() as log:
        async with served(60) as (url, told):
            answer = await handshake(url, behind=CLOSE + frame(b"a") * PARSED_AT_ONCE)
            assert (await told.get())["code"] == 1000
    assert answer.endswith(b"\x88\x02\x03\xe8")
    assert log == []


async def test_nothing_is_left_of_a_caller_who_keeps_sending_to_an_application_that_has_ended() -> None:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.close", "code": 1000})

    async with served_app(app) as server:
        await server.talk(b"no request\r\n\r\n")  # the server has started
        before = asyncio.all_tasks()
        caller = await server.connect()
        caller.writer.write(handshake_with())
        await caller.head()
        caller.writer.write(frame(b"a") * 1000)
        assert await caller.rest() == b"\x88\x02\x03\xe8"
        caller.writer.close()
        await until(lambda: asyncio.all_tasks() <= before)


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
