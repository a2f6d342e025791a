"""The bounds of a connection: pipelined requests, connections, and the clocks."""

import asyncio
import contextlib
import math
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.server import http1, limits, serve
from proxy.server.http1 import Connection
from proxy.server.limits import ConnectionLimits
from tests.loopback import until
from tests.pace import PATIENCE
from tests.server.conftest import Caller, Echo, Message, served, small_buffers
from tests.server.raw import GET, HOST, bodies, head, part, refusal, start
from tests.waiting import delay


async def test_pipelined_requests_are_bounded() -> None:
    app = Echo()
    async with served(app) as server:
        answer = await server.talk(GET * 5000)
    assert len(app.seen) < 50
    assert answer.count(b"HTTP/1.1 200") == len(app.seen)


async def test_a_connection_beyond_the_limit_is_503_with_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "QUIET_SECONDS", PATIENCE)
    async with served(Echo(), max_connections=2) as server:
        held = [await server.connect() for _ in range(2)]
        for caller in held:
            caller.writer.write(GET)
            await caller.head()
        answer = await server.talk(b"")
        assert refusal(answer)[0] == 503
        assert b"retry-after: 1" in answer
        for caller in held:
            caller.writer.close()
        await asyncio.sleep(0)


class Busy(Echo):
    """An application that holds the requests for `/held`."""

    def __init__(self) -> None:
        super().__init__()
        self.holding = 0

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["path"] != "/held":
            await super().__call__(scope, receive, send)
            return
        self.holding += 1
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
        while "disconnect" not in (await receive())["type"]:
            pass


HELD = GET.replace(b"/a", b"/held")
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize("sent", [b"", b"GET", GET, GET + b"GET"])
async def test_beyond_the_limit_the_quietest_connection_without_a_request_gives_way(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(serve, "QUIET_SECONDS", 0.0)
    app = Busy()
    async with served(app, max_connections=4) as server:
        held = [await server.connect() for _ in range(2)]
        held[0].writer.write(HELD)
        held[1].writer.write(HELD.removesuffix(b"\r\n") + UPGRADE)
        await until(lambda: app.holding == 2)
        quiet = [await server.connect() for _ in range(2)]
        for caller in quiet:
            caller.writer.write(sent)
            if sent.startswith(GET):
                await caller.head()
                await caller.exactly(len(b"GET /a|"))
        held += [await server.connect() for _ in quiet]
        for caller in quiet:
            assert await caller.rest() == b""
        for caller in held[2:]:
            caller.writer.write(HELD)
        await until(lambda: app.holding == 4)
        assert refusal(await server.talk(b""))[0] == 503
        assert not any(caller.reader.at_eof() for caller in held)
        for caller in [*held, *quiet]:
            caller.writer.close()


async def test_beyond_the_limit_no_response_that_is_still_being_read_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "QUIET_SECONDS", 0.0)
    body = b"b" * (32 << 20)  # more than the kernel takes
    ended = asyncio.Event()

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await send(start(200, (b"content-length", b"%d" % len(body))))
        ended.set()
        await send(part(body, more=False))

    async with served(app, max_connections=1) as server:
        caller = await server.connect()
        caller.writer.write(GET)
        await ended.wait()
        assert refusal(await server.talk(b""))[0] == 503
        await caller.head()
        assert await caller.exactly(len(body)) == body
        caller.writer.close()


async def send_on(caller: Caller) -> None:
    """Send until the server closes the connection."""
    while True:
        caller.writer.write(b"a")
        await caller.writer.drain()
        await delay(0.05)


async def test_a_rejected_connection_is_closed_although_its_caller_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http1, "LINGER_SECONDS", 0.1)
    async with served(Echo(), max_connections=0) as server:
        caller = await server.connect()
        assert refusal(await caller.rest())[0] == 503
        with pytest.raises(ConnectionError):
            await send_on(caller)


async def test_of_many_rejected_connections_some_are_closed_without_a_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "SURPLUS_MAX", 2)
    async with served(Echo(), max_connections=0) as server:
        callers = [await server.connect() for _ in range(4)]
        answers = [await caller.rest() for caller in callers[:2]]
        assert [refusal(answer)[0] for answer in answers] == [503, 503]
        for caller in callers[2:]:
            with contextlib.suppress(ConnectionError):
                assert await caller.rest() == b""
        for caller in callers:
            caller.writer.close()


@pytest.mark.parametrize(
    ("open_files", "fitting"),
    [(math.inf, 10_000), (65_536, 10_000), (20_320, 10_000), (20_319, 9_999), (1024, 352), (256, 64), (3, 1)],
)
def test_two_open_files_for_each_connection_and_a_reserve_must_fit(
    monkeypatch: pytest.MonkeyPatch, open_files: float, fitting: int
) -> None:
    def raise_descriptors_max(wanted: int) -> float:
        assert wanted == 20_320
        return open_files

    monkeypatch.setattr(limits, "raise_descriptors_max", raise_descriptors_max)
    assert limits.fit_connections(10_000) == fitting


# --- clocks


@pytest.fixture
def from_the_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check no timeout of a silent connection: a busy machine may be slow to send the first byte."""
    tick = Connection.tick

    def later(connection: Connection, now: float) -> None:
        if connection._lost or connection._reader.head_bytes or connection._reader.requests:
            tick(connection, now)

    monkeypatch.setattr(Connection, "tick", later)


WINDOW_SECONDS = ConnectionLimits().window_seconds
FAST = ConnectionLimits(
    head_seconds=0.5, idle_seconds=0.5, window_seconds=0.5, body_bytes=100, response_bytes=1
)


@pytest.mark.usefixtures("from_the_first_byte")
async def test_a_slow_head_is_408() -> None:
    async with served(Echo(), FAST) as server:
        assert refusal(await server.talk(b"GET / HTTP/1.1\r\nHost:")) == (408, "request_timeout")


@pytest.mark.usefixtures("from_the_first_byte")
@pytest.mark.parametrize("between", [b"", b"GET"])
async def test_a_slow_head_behind_another_request_is_408(between: bytes) -> None:
    limits = replace(FAST, idle_seconds=PATIENCE)
    async with served(Echo(), limits) as server:
        caller = await server.connect()
        caller.writer.write(GET + between)
        await caller.head()
        assert await caller.exactly(len(b"GET /a|")) == b"GET /a|"
        caller.writer.write(b"GET / HTTP/1.1\r\nHost:"[len(between) :])
        assert refusal(await caller.rest()) == (408, "request_timeout")
        caller.writer.close()


@pytest.mark.usefixtures("from_the_first_byte")
async def test_a_slow_head_is_408_even_while_bytes_arrive() -> None:
    async with served(Echo(), FAST) as server:
        caller = await server.connect()
        caller.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        ended = asyncio.get_running_loop().create_task(caller.rest())
        while not ended.done():
            caller.writer.write(b"a")
            await delay(0.05)
        assert refusal(ended.result())[0] == 408
        caller.writer.close()


async def test_a_silent_connection_is_closed_without_a_response() -> None:
    async with served(Echo(), FAST) as server:
        assert await server.talk(b"") == b""


@pytest.mark.usefixtures("from_the_first_byte")
async def test_an_idle_connection_is_closed_behind_its_response() -> None:
    async with served(Echo(), FAST) as server:
        assert bodies(await server.talk(GET)) == [b"GET /a|"]


@pytest.mark.usefixtures("from_the_first_byte")
async def test_a_slow_body_is_408_and_the_application_gets_the_reason() -> None:
    app = Echo()
    async with served(app, FAST) as server:
        caller = await server.connect()
        caller.writer.write(head(HOST, b"Content-Length: 1000"))
        ended = asyncio.get_running_loop().create_task(caller.rest())
        while not ended.done():
            caller.writer.write(b"a")
            await delay(0.05)
        assert refusal(ended.result())[0] == 408
        caller.writer.close()
    assert app.disconnects == ["slow_body"]


@pytest.mark.usefixtures("from_the_first_byte")
async def test_a_body_that_the_application_does_not_read_has_no_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks, checked = list[float](), asyncio.Event()
    tick = Connection.tick

    def watched(connection: Connection, now: float) -> None:
        tick(connection, now)
        checks.append(now)
        if now - checks[0] > 3 * FAST.window_seconds:
            checked.set()

    monkeypatch.setattr(Connection, "tick", watched)

    async def late(scope: Message, receive: Any, send: Any) -> None:
        await checked.wait()
        body = b""
        while (message := await receive())["more_body"]:
            body += message["body"]
        await send(start(200, (b"content-length", b"2")))
        await send(part(b"ok", more=False))

    async with served(late, FAST) as server:
        caller = await server.connect()
        caller.writer.write(head(HOST, b"Connection: close", b"Content-Length: 1000000") + b"a" * 1_000_000)
        assert (await caller.rest()).endswith(b"ok")
        caller.writer.close()


class Flood:
    """An application that writes without an end."""

    def __init__(self) -> None:
        self.reason: str | None = None

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send(start())
        try:
            while True:
                await send(part(b"x" * 16_384))
        except ConnectionResetError as error:
            self.reason = str(error)


@pytest.mark.usefixtures("from_the_first_byte")
async def test_a_caller_who_reads_nothing_is_disconnected() -> None:
    app = Flood()
    async with served(app, FAST) as server:
        with small_buffers(server.port) as caller:
            await asyncio.get_running_loop().sock_sendall(caller, GET)
            await until(lambda: app.reason is not None)
    assert app.reason == "slow_reader"


@pytest.mark.usefixtures("from_the_first_byte")
@pytest.mark.parametrize("close", [True, False])
async def test_the_last_bytes_of_a_response_do_not_wait_for_ever(
    opened: list[Connection], *, close: bool
) -> None:
    async def answer(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send(start(200, *([(b"connection", b"close")] if close else [])))
        while not opened[0]._transport.get_write_buffer_size():
            await send(part(b"x" * 1024))
        assert not opened[0]._writing_paused
        await send(part(b"", more=False))

    async with served(answer, FAST) as server:
        with small_buffers(server.port) as caller:
            await asyncio.get_running_loop().sock_sendall(caller, GET)
            await until(lambda: bool(opened) and opened[0]._lost)


async def test_a_caller_who_reads_slowly_but_steadily_stays_connected(
    monkeypatch: pytest.MonkeyPatch, opened: list[Connection]
) -> None:
    loop, tick = asyncio.get_running_loop(), Connection.tick
    monkeypatch.setattr(Connection, "tick", lambda connection, now: None)  # only the test lets time pass
    async with served(Flood()) as server:
        with small_buffers(server.port) as caller:
            await loop.sock_sendall(caller, GET)
            await until(lambda: bool(opened) and opened[0]._writing_paused)
            now = loop.time()
            for second in range(4 * int(WINDOW_SECONDS)):
                tick(opened[0], now + second)
                assert await loop.sock_recv(caller, 1024)
            assert not opened[0]._closing
