"""WebSockets to upstreams: the handshake, messages however the frames are split, and every end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Final

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import SERVER, Connection
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.events import Event as Frame
from wsproto.utilities import generate_accept_token

from proxy.upstream import websocket
from proxy.upstream.transport import UpstreamResponse, UpstreamTransport
from proxy.upstream.websocket import FRAME_BYTES_MAX, REJECTION_BYTES_MAX, ArrivingMessages, SocketOpener
from proxy.wire.websocket import GOING_AWAY, LOST, MESSAGE_BYTES_MAX, NO_CODE, Close
from tests.loopback import until
from tests.raw_upstream import Conversation, raw_upstream
from tests.upstream.build import PATIENCE, read_all

HEAD: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
Message = str | bytes


class Wire(asyncio.Transport):
    """A transport that keeps the written bytes, and shows whether reading is paused."""

    def __init__(self, socket: ArrivingMessages) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_paused = self.is_closed = False
        self._socket = socket
        socket.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep the bytes."""
        self.written += data

    def pause_reading(self) -> None:
        """Pause reading."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Resume reading."""
        self.is_paused = False

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self.is_closed

    def close(self) -> None:
        """Close."""
        if not self.is_closed:
            self.is_closed = True
            self._socket.connection_lost(None)

    abort = close

    def frames(self) -> list[Frame]:
        """Return the written frames, as the upstream parses them."""
        upstream = Connection(SERVER)
        upstream.receive_data(bytes(self.written))
        return list(upstream.events())


def build() -> tuple[ArrivingMessages, Wire]:
    """Return an open WebSocket on a transport of the test."""
    socket = ArrivingMessages(SocketOpener(tls=False, proxy=None))
    wire = Wire(socket)
    socket.data_received(HEAD + b"\r\n")
    socket.start(None)
    return socket, wire


def frames_of(*events: Frame) -> bytes:
    """Return the frames of an upstream."""
    upstream = Connection(SERVER)
    return b"".join(upstream.send(event) for event in events)


def fragments(message: Message, size: int) -> list[Frame]:
    """Return a message in fragments, with a ping after each."""
    pieces = [message[at : at + size] for at in range(0, len(message), size)] or [message]
    events = list[Frame]()
    for number, piece in enumerate(pieces, 1):
        is_last = number == len(pieces)
        if isinstance(piece, str):
            events.append(TextMessage(piece, message_finished=is_last))
        else:
            events.append(BytesMessage(piece, message_finished=is_last))
        events.append(Ping(b"%d" % number))
    return events


async def receive_all(socket: ArrivingMessages) -> list[Message | Close]:
    """Receive until the end, and include it."""
    received: list[Message | Close] = []
    while not received or not isinstance(received[-1], Close):
        received.append(await socket.receive())
    return received


@given(
    messages=st.lists(st.text(max_size=300) | st.binary(max_size=300), max_size=6),
    size=st.integers(1, 200),
    cuts=st.lists(st.integers(1, 400), max_size=30),
)
def test_messages_are_the_same_wherever_the_reads_end(
    messages: list[Message], size: int, cuts: list[int]
) -> None:
    events = [event for message in messages for event in fragments(message, size)]
    data = HEAD + b"\r\n" + frames_of(*events, CloseConnection(4001, "完了"))

    async def read() -> tuple[list[Message | Close], list[Frame]]:
        socket = ArrivingMessages(SocketOpener(tls=False, proxy=None))
        wire, rest = Wire(socket), data
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            receiving: asyncio.Task[list[Message | Close]] | None = None
            for cut in [*cuts, len(data)]:
                if not wire.is_closed:
                    socket.data_received(rest[:cut])
                rest = rest[cut:]
                if wire.is_paused and receiving is None:
                    socket.start(None)
                    receiving = group.create_task(receive_all(socket))
                await until(lambda: not wire.is_paused or wire.is_closed)
        assert wire.is_closed
        assert receiving is not None
        return receiving.result(), wire.frames()

    received, answers = asyncio.run(read())
    assert received == [*messages, Close(4001, "完了")]
    pings = [event.payload for event in events if isinstance(event, Ping)]
    assert [event.payload for event in answers if isinstance(event, Pong)] == pings
    assert answers[-1] == CloseConnection(4001, "")


async def test_no_further_frame_is_parsed_while_a_message_waits() -> None:
    socket, wire = build()
    socket.data_received(frames_of(TextMessage("one"), Ping(b"later"), TextMessage("two")))
    assert wire.is_paused
    assert not wire.frames()
    assert await socket.receive() == "one"
    assert not wire.frames()
    assert await socket.receive() == "two"
    assert wire.frames() == [Pong(b"later")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x02\xff\xfe", 1007),
        (b"\x83\x00", 1002),
        (b"\x81\x81\0\0\0\0x", 1002),
        (b"\xc1\x01x", 1002),
        (b"\x80\x01x", 1002),
        (b"\x88\x02\x03\xee", 1002),
    ],
    ids=["not UTF-8", "unknown opcode", "masked", "compressed", "continues nothing", "1006 on the wire"],
)
async def test_a_violation_closes_with_its_code(data: bytes, code: int) -> None:
    socket, wire = build()
    socket.data_received(data)
    assert await socket.receive() == Close(code)
    assert [type(frame) for frame in wire.frames()] == [CloseConnection]
    assert wire.frames()[0] == CloseConnection(code, "")
    socket.data_received(b"\x81\x01x")  # is read and dropped
    assert await socket.receive() == Close(code)
    assert not wire.is_paused
    wire.abort()


@pytest.mark.parametrize(
    ("kind", "half", "last"),
    [
        (BytesMessage, bytes(MESSAGE_BYTES_MAX // 2), b"x"),
        (TextMessage, "😀" * (MESSAGE_BYTES_MAX // 2 // len("😀".encode())), "x"),
    ],
    ids=["bytes", "text"],
)
async def test_fragments_together_have_the_limit_of_a_message(
    kind: type[BytesMessage | TextMessage], half: Any, last: Any
) -> None:
    socket, wire = build()
    upstream = Connection(SERVER)
    for _ in range(2):
        socket.data_received(upstream.send(kind(half, message_finished=False)))
    assert not wire.written
    socket.data_received(upstream.send(kind(last, message_finished=True)))
    assert await socket.receive() == Close(1009)
    wire.abort()


@pytest.mark.parametrize("then_lost", [False, True])
async def test_frames_that_complete_no_message_let_others_take_turns(*, then_lost: bool) -> None:
    socket, wire = build()
    count = 20 * websocket.FRAMES_AT_ONCE
    socket.data_received(b"\x01\x01a" + b"\x00\x00" * count + b"\x80\x01b")
    if then_lost:
        wire.abort()
    receiving = asyncio.get_running_loop().create_task(socket.receive())
    turns = 0
    while not receiving.done():
        assert wire.is_paused
        await asyncio.sleep(0)
        turns += 1
    assert turns > count // websocket.FRAMES_AT_ONCE - 2
    assert await receiving == "ab"
    wire.abort()
    assert await socket.receive() == Close(LOST)


async def test_all_pings_in_one_read_are_answered_and_reading_continues() -> None:
    socket, wire = build()
    count = 3 * websocket.FRAMES_AT_ONCE
    socket.data_received(b"\x89\x00" * count)
    assert wire.is_paused
    await until(lambda: not wire.is_paused)
    assert wire.frames() == [Pong(b"")] * count
    wire.abort()


async def test_a_large_message_is_sent_in_fragments_at_the_pace_of_the_upstream() -> None:
    socket, wire = build()
    message = "你" * (FRAME_BYTES_MAX // len("你".encode()) + 1)
    socket.pause_writing()
    sending = asyncio.get_running_loop().create_task(socket.send(message))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not wire.written
    socket.resume_writing()
    await sending
    frames = [frame for frame in wire.frames() if isinstance(frame, TextMessage)]
    assert len(frames) > 2
    assert "".join(frame.data for frame in frames) == message
    assert [frame.message_finished for frame in frames].count(True) == 1
    wire.abort()


async def test_only_the_last_ping_of_an_upstream_that_reads_nothing_is_answered() -> None:
    socket, wire = build()
    socket.pause_writing()
    socket.data_received(frames_of(*(Ping(b"%d" % number) for number in range(100))))
    assert not wire.written
    socket.resume_writing()
    assert wire.frames() == [Pong(b"99")]
    wire.abort()


async def test_a_lost_connection_is_1006_after_the_messages_before_it() -> None:
    socket, wire = build()
    socket.data_received(frames_of(TextMessage("one"), TextMessage("two")))
    wire.abort()
    assert [await socket.receive() for _ in range(3)] == ["one", "two", Close(LOST)]
    with pytest.raises(httpx2.WriteError):
        await socket.send("too late")


async def test_a_close_without_a_code_is_answered_by_one() -> None:
    socket, wire = build()
    socket.data_received(b"\x88\x00")
    assert await socket.receive() == Close(NO_CODE)
    assert wire.frames() == [CloseConnection(NO_CODE, "")]
    assert wire.is_closed


async def test_our_close_waits_for_that_of_the_upstream_and_drops_messages() -> None:
    socket, wire = build()
    closing = asyncio.get_running_loop().create_task(socket.close(Close(4000, "完了")))
    await asyncio.sleep(0)
    assert wire.frames() == [CloseConnection(4000, "完了")]
    socket.data_received(frames_of(TextMessage("dropped"), TextMessage("too")))
    await asyncio.sleep(0)
    assert not closing.done()
    socket.data_received(frames_of(CloseConnection(4000)))
    await closing
    assert wire.is_closed
    assert await socket.receive() == Close(4000)


async def test_our_close_is_bounded_and_a_cancelled_one_cuts_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket, wire = build()
    closing = asyncio.get_running_loop().create_task(socket.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await closing
    assert wire.is_closed
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.01)
    socket, wire = build()
    await socket.close(Close(GOING_AWAY))
    assert wire.is_closed


async def test_a_silent_upstream_gets_a_ping_and_is_then_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "HEARTBEAT_SECONDS", 0.02)
    socket, wire = build()
    async with asyncio.timeout(PATIENCE):
        assert await socket.receive() == Close(LOST)
    assert wire.frames() == [Ping(b"")]


def has_pinged(wire: Wire, times: int) -> bool:
    """Return whether this many frames were written."""
    return len(wire.frames()) >= times


async def test_an_upstream_that_answers_pings_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "HEARTBEAT_SECONDS", 0.2)
    socket, wire = build()
    for count in range(1, 4):
        await until(partial(has_pinged, wire, count))
        socket.data_received(frames_of(Pong(b"")))
    assert not wire.is_closed
    wire.abort()


# --- the handshake


@contextlib.asynccontextmanager
async def answered(
    answer: Callable[[bytes], bytes], subprotocols: Sequence[str] = ("realtime",)
) -> AsyncIterator[UpstreamResponse]:
    """Perform a handshake that the upstream answers with these bytes, which depend on the accepted key."""

    async def script(talk: Conversation) -> None:
        (key,) = talk.request.header("Sec-WebSocket-Key")
        await talk.say(answer(generate_accept_token(key.encode())))
        await talk.caller_left()

    transport = UpstreamTransport(tls=False)
    async with raw_upstream(script) as upstream:
        try:
            async with asyncio.timeout(PATIENCE):
                yield await transport.open_socket(
                    upstream.url, b"/v1/realtime", [], subprotocols, connect=PATIENCE
                )
        finally:
            await transport.aclose()
        await until(lambda: upstream.connections == 0)


async def test_frames_may_arrive_with_the_response() -> None:
    def answer(accept: bytes) -> bytes:
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        head = HEAD + b"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: realtime\r\n\r\n" % accept
        return hints + head + frames_of(TextMessage("你好"), CloseConnection(4000))

    async with answered(answer) as response:
        assert response.status == 101
        assert response.socket is not None
        assert response.socket.subprotocol == "realtime"
        assert await response.socket.receive() == "你好"
        assert await response.socket.receive() == Close(4000)
        await response.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        lambda accept: HEAD + b"\r\n",
        lambda accept: HEAD + b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept.swapcase(),
        lambda accept: HEAD + b"Sec-WebSocket-Accept: %s\r\n" % accept * 2 + b"\r\n",
        lambda accept: HEAD + b"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: own\r\n\r\n" % accept,
        lambda accept: (
            HEAD
            + b"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n" % accept
        ),
        lambda accept: (
            b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept
        ),
        lambda accept: b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n" % accept,
    ],
    ids=["no accept", "wrong accept", "two", "other subprotocol", "extension", "other upgrade", "no upgrade"],
)
async def test_a_wrong_handshake_is_rejected(answer: Callable[[bytes], bytes]) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        async with answered(answer):
            pass


async def test_the_body_of_a_rejection_is_read_up_to_a_limit() -> None:
    def rejection(size: int) -> bytes:
        return b"HTTP/1.1 403 Forbidden\r\nX-A: b\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)

    async with answered(lambda _: rejection(REJECTION_BYTES_MAX)) as response:
        assert (response.status, response.headers[0], response.socket) == (403, (b"X-A", b"b"), None)
        assert await read_all(response) == bytes(REJECTION_BYTES_MAX)
    async with answered(lambda _: rejection(4 * REJECTION_BYTES_MAX)) as response:
        arriving = response._response
        assert arriving is not None
        await until(lambda: arriving.error is not None)
        with pytest.raises(httpx2.ReadError):
            await read_all(response)


async def test_a_rejection_is_returned_before_its_body_has_arrived() -> None:
    async with answered(lambda _: b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\n{") as response:
        assert (response.status, await response.read()) == (401, b"{")
        await response.aclose()


async def test_a_cancelled_handshake_closes_its_connection() -> None:
    async def script(talk: Conversation) -> None:
        await talk.caller_left()

    transport = UpstreamTransport(tls=False)
    async with raw_upstream(script) as upstream:
        opening = asyncio.get_running_loop().create_task(
            transport.open_socket(upstream.url, b"/", [], [], connect=PATIENCE)
        )
        await until(lambda: bool(upstream.requests))
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await until(lambda: upstream.connections == 0)
    await transport.aclose()
