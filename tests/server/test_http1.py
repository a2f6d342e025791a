"""Connections: callers that leave, and the end of the server."""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.server import http1, serve, tcp
from proxy.server.http1 import Connection
from proxy.server.limits import LINGER_BYTES, PROBE_PAUSES, ConnectionLimits
from proxy.server.request_cycle import CONTINUE
from tests.loopback import until
from tests.pace import PATIENCE, paced
from tests.server.conftest import App, Echo, Message, Served, read_all, served, small_buffers
from tests.server.raw import GET, LAST, part, start
from tests.server.test_tcp import on_linux
from tests.tls_servers import make_certificate

# --- callers that leave

GET_1_0 = b"GET /a HTTP/1.0\r\n\r\n"


class Holding:
    """An application that waits until its caller leaves; and, if asked to, streams meanwhile."""

    def __init__(self, *first: Message) -> None:
        self.reasons: list[str] = []
        self.running = 0
        self._first = first

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        self.running += 1
        while (await receive())["more_body"]:
            pass
        for message in self._first:
            await send(message)
        message = await receive()
        self.reasons.append(message["reason"])
        self.running -= 1


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_caller_who_leaves_is_noticed_at_once(how: str, *, streaming: bool) -> None:
    app = Holding(*([start(), part(b"data: 1\n\n")] if streaming else []))
    async with served(app) as server:
        caller = await server.connect()
        caller.writer.write(GET)
        if streaming:
            await caller.head()
        await until(lambda: app.running == 1)
        if how == "reset":
            caller.writer.transport.abort()
        else:
            caller.writer.close()
        async with asyncio.timeout(paced(1.0)):
            await until(lambda: app.reasons == ["client_gone"])


async def test_a_caller_who_leaves_behind_pipelined_bytes_is_noticed() -> None:
    app = Holding()
    async with served(app) as server:
        caller = await server.connect()
        caller.writer.write(GET + GET)
        await until(lambda: app.running == 1)
        caller.writer.close()
        async with asyncio.timeout(paced(4.0)):
            await until(lambda: app.reasons[:1] == ["client_gone"])


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_half_closed_caller_still_gets_its_whole_response(
    monkeypatch: pytest.MonkeyPatch, *, chunked: bool
) -> None:
    half_closed, probed = asyncio.Event(), asyncio.Event()
    detect = Connection._detect_disconnect

    def watched(connection: Connection) -> None:
        detect(connection)
        probed.set()

    monkeypatch.setattr(Connection, "_detect_disconnect", watched)

    async def slow(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        headers = [] if chunked else [(b"content-length", b"6")]
        await send(start(200, *headers))
        await send(part(b"abc"))
        await half_closed.wait()
        probed.clear()
        await probed.wait()  # the server has checked whether the caller has left
        await send(part(b"def", more=False))

    async with served(slow) as server:
        caller = await server.connect()
        caller.writer.write(GET)
        first = await caller.head()
        caller.writer.write_eof()
        half_closed.set()
        answer = first + await caller.rest()
        caller.writer.close()
    body = answer.partition(b"\r\n\r\n")[2]
    assert body in {b"abcdef", b"3\r\nabc\r\n03\r\ndef\r\n0\r\n\r\n", b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"}


PROBED = {
    "before the response": ([], CONTINUE),
    "within a chunked response": ([start(), part(b"abc")], b"3\r\nabc\r\n0"),
}
"""What the application sends at first, and what a half-closed caller has received after the first probe."""


@pytest.fixture
def fast_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check all connections much more often."""
    monkeypatch.setattr(serve, "TICK_SECONDS", 0.02)


@pytest.mark.usefixtures("fast_ticks")
@pytest.mark.parametrize(("response", "probe"), PROBED.values(), ids=[*PROBED])
async def test_a_half_closed_caller_who_closes_later_is_noticed(
    monkeypatch: pytest.MonkeyPatch, response: list[Message], probe: bytes
) -> None:
    monkeypatch.setattr(http1, "PROBE_PAUSES", (0.3, 0.3, PATIENCE))
    app = Holding(*response)
    async with served(app) as server:
        caller = await server.connect()
        caller.writer.write(GET)
        caller.writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            await caller.reader.readuntil(probe)
        caller.writer.close()
        await until(lambda: app.reasons == ["client_gone"])


@pytest.mark.usefixtures("fast_ticks")
@pytest.mark.parametrize(
    ("request_head", "response", "received"),
    [
        (GET, *PROBED["before the response"]),
        (GET, *PROBED["within a chunked response"]),
        (GET_1_0, [start(), part(b"abc")], b"abc"),
        (GET, [start(200, (b"content-length", b"6")), part(b"abc")], b"abc"),
    ],
    ids=["before the response", "chunked", "HTTP/1.0", "a length"],
)
@on_linux
async def test_the_kernel_notices_a_half_closed_caller_who_closes_after_the_last_probe(
    monkeypatch: pytest.MonkeyPatch, request_head: bytes, response: list[Message], received: bytes
) -> None:
    monkeypatch.setattr(http1, "PROBE_PAUSES", ())
    monkeypatch.setattr(http1, "UNPROBED_SECONDS", 10 * PATIENCE)  # it never counts as gone
    monkeypatch.setattr(tcp, "KEEP_ALIVE_SECONDS", 1)
    probed = asyncio.Event()
    keep_alive = tcp.keep_alive

    def watched(connection: socket.socket | None) -> None:
        keep_alive(connection)
        probed.set()

    monkeypatch.setattr(tcp, "keep_alive", watched)
    app = Holding(*response)
    async with served(app) as server:
        caller = await server.connect()
        connection = caller.writer.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)  # It is forgotten after a second.
        caller.writer.write(request_head)
        await until(lambda: app.running == 1)
        caller.writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            await probed.wait()
            await caller.reader.readuntil(received)  # Unread bytes would make the close a reset.
        caller.writer.close()
        await until(lambda: app.reasons == ["client_gone"])


@pytest.mark.usefixtures("fast_ticks")
async def test_a_half_closed_caller_is_probed_a_limited_number_of_times_in_each_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses = (0.0,) * len(PROBE_PAUSES)
    monkeypatch.setattr(http1, "PROBE_PAUSES", pauses)
    ticks, tick = [0], Connection.tick

    def counted(connection: Connection, now: float) -> None:
        ticks[-1] += connection._eof
        tick(connection, now)

    monkeypatch.setattr(Connection, "tick", counted)

    async def slow(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        for message in (start(), part(b"abc"), part(b"def"), part(b"ghi", more=False)):
            ticks.append(0)
            await until(lambda: ticks[-1] > 3 * len(pauses))
            await send(message)

    async with served(slow) as server:
        answer = await server.talk(GET, end=True)
    interim, _, rest = answer.partition(b"HTTP/1.1 200 ")
    assert interim == CONTINUE * (interim.count(CONTINUE))
    assert 1 < interim.count(CONTINUE) <= 1 + len(pauses) < 5
    chunks = re.fullmatch(
        rb"(0*)3\r\nabc\r\n(0+)3\r\ndef\r\n(0+)3\r\nghi\r\n0\r\n\r\n", rest.partition(b"\r\n\r\n")[2]
    )
    assert chunks is not None
    assert max(map(len, chunks.groups())) <= 1 + len(pauses)


UNPROBED = {  # neither HTTP/1.0 nor a body with a length has bytes that a live caller ignores
    "HTTP/1.0 before the response": (GET_1_0, []),
    "HTTP/1.0 within a body without a length": (GET_1_0, [start(), part(b"abc")]),
    "a body with a length": (GET, [start(200, (b"content-length", b"6")), part(b"abc")]),
}


@pytest.mark.parametrize(("request_head", "response"), UNPROBED.values(), ids=[*UNPROBED])
@pytest.mark.parametrize("leave", ["close", "reset", "half-close"])
async def test_a_caller_that_cannot_be_probed_and_gets_no_bytes_counts_as_gone(
    monkeypatch: pytest.MonkeyPatch, request_head: bytes, response: list[Message], leave: str
) -> None:
    monkeypatch.setattr(http1, "UNPROBED_SECONDS", 0.05)
    app = Holding(*response)
    async with served(app) as server:
        caller = await server.connect()
        caller.writer.write(request_head)
        if response:
            await caller.head()
            await caller.exactly(len(b"abc"))
        await until(lambda: app.running == 1)
        if leave == "half-close":
            caller.writer.write_eof()
            with pytest.raises(ConnectionResetError):  # A close would look like the end of the body.
                await caller.exactly(1)
        elif leave == "close":
            caller.writer.close()
        else:
            caller.writer.transport.abort()
        await until(lambda: app.reasons == ["client_gone"])
        caller.writer.close()


@pytest.mark.parametrize(("request_head", "response"), UNPROBED.values(), ids=[*UNPROBED])
async def test_a_half_closed_caller_that_gets_bytes_in_time_gets_all_of_them(
    monkeypatch: pytest.MonkeyPatch, request_head: bytes, response: list[Message]
) -> None:
    half_closed, judged = asyncio.Event(), asyncio.Event()
    end_unprobed = Connection._end_unprobed

    def watched(connection: Connection, taken: int) -> None:
        end_unprobed(connection, taken)
        judged.set()

    def begun(connection: Connection) -> None:
        probe(connection)
        half_closed.set()

    probe = Connection._probe
    monkeypatch.setattr(Connection, "_probe", begun)
    monkeypatch.setattr(Connection, "_end_unprobed", watched)
    monkeypatch.setattr(http1, "UNPROBED_SECONDS", paced(0.5))

    async def slow(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        for message in response:
            await send(message)
        await half_closed.wait()
        for message in [] if response else [start(), part(b"abc")]:
            await send(message)
        await send(part(b"de"))
        await judged.wait()
        await send(part(b"f", more=False))

    async with served(slow) as server:
        caller = await server.connect()
        caller.writer.write(request_head)
        if response:
            await caller.head()
        caller.writer.write_eof()
        assert (await caller.rest()).endswith(b"abcdef")
        caller.writer.close()


@pytest.mark.parametrize("end", [GET, b"GET /a\r\n\r\n"])
async def test_a_half_closed_caller_gets_a_response_to_each_pipelined_request(
    monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    probed = asyncio.Event()
    probe = Connection._probe

    def watched(connection: Connection) -> None:
        probe(connection)
        probed.set()

    monkeypatch.setattr(Connection, "_probe", watched)

    async def slow(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await probed.wait()  # the server knows that the caller sends no more
        await send(start(200, (b"content-length", b"1")))
        await send(part(b"x", more=False))

    async with served(slow) as server:
        answer = await server.talk(GET + GET + end, end=True)
    assert re.findall(rb"HTTP/1\.1 ([^1]\d\d) ", answer) == [b"200", b"200", b"200" if end == GET else b"505"]


async def test_connections_that_callers_close_are_freed_at_once() -> None:
    def descriptors() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    async with served(Echo()) as server:
        await server.talk(LAST)
        before, tasks = descriptors(), len(asyncio.all_tasks())
        for _ in range(300):
            caller = await server.connect()
            caller.writer.write(GET)
            await caller.head()
            caller.writer.close()
        await until(lambda: descriptors() <= before + 3 and len(asyncio.all_tasks()) <= tasks + 3)


# --- responses that end early


LARGE = bytes(32 << 20)
"""More than the kernel takes."""
UPLOAD_1_0 = b"POST /a HTTP/1.0\r\nContent-Length: 9000000\r\n\r\n"


async def pour(scope: Message, receive: Any, send: Any) -> None:
    """Respond without an end."""
    await send(start())
    while True:
        await send(part(b"x" * 65_536))


async def leave_the_rest_to_the_server(scope: Message, receive: Any, send: Any) -> None:
    """Respond completely; most of it waits for the caller to read."""
    await send(start())
    await send(part(LARGE, more=False))


async def respond_and_read(scope: Message, receive: Any, send: Any) -> None:
    """Begin to respond, and read the body."""
    await send(start())
    await send(part(b"abc"))
    while (await receive())["type"] == "http.request":
        pass


async def fail(scope: Message, receive: Any, send: Any) -> None:
    """Begin to respond, and fail."""
    await send(start())
    await send(part(b"abc"))
    raise OSError


async def nothing(caller: socket.socket, server: Served) -> None:
    """Wait for the server."""


async def stop(caller: socket.socket, server: Served) -> None:
    server.stop.set()


async def half_close(caller: socket.socket, server: Served) -> None:
    caller.shutdown(socket.SHUT_WR)


async def send_on(caller: socket.socket, server: Served) -> None:
    with contextlib.suppress(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(caller, bytes(3 * LINGER_BYTES))


EARLY_ENDS = {
    "a caller that reads nothing": (GET_1_0, pour, nothing),
    "a caller that reads nothing of the rest": (GET_1_0, leave_the_rest_to_the_server, nothing),
    "a shutdown": (GET_1_0, pour, stop),
    "a shutdown before the rest is read": (GET_1_0, leave_the_rest_to_the_server, stop),
    "a caller that closes its sending side within its body": (UPLOAD_1_0, pour, half_close),
    "a body that is too slow": (UPLOAD_1_0, respond_and_read, nothing),
    "a body that is not wanted and does not end": (UPLOAD_1_0, leave_the_rest_to_the_server, send_on),
    "a failure of the application": (GET_1_0, fail, nothing),
}
"""The request, the application and the further act of the caller or the server."""
IMPATIENT = ConnectionLimits(window_seconds=0.5, body_bytes=1000)


@pytest.mark.parametrize(("request_head", "app", "act"), EARLY_ENDS.values(), ids=[*EARLY_ENDS])
async def test_no_response_that_the_connection_ends_looks_complete_if_it_is_not(
    opened: list[Connection], request_head: bytes, app: App, act: Callable[[Any, Served], Awaitable[None]]
) -> None:
    async with served(app, IMPATIENT, graceful=0.1) as server:
        with small_buffers(server.port) as caller:
            await asyncio.get_running_loop().sock_sendall(caller, request_head)
            await until(lambda: bool(opened) and opened[0]._written > 0)
            await act(caller, server)
            await until(lambda: opened[0]._lost)
            with pytest.raises(ConnectionResetError):
                await read_all(caller)


@pytest.mark.parametrize("act", [stop, None], ids=["a shutdown", "a caller that closes TLS"])
async def test_no_response_that_a_connection_with_tls_ends_looks_complete_if_it_is_not(
    tmp_path: Path, opened: list[Connection], act: Callable[[Any, Served], Awaitable[None]] | None
) -> None:
    certificate = make_certificate(tmp_path)
    async with served(pour, graceful=0.1, certificate=certificate) as server:
        loop = asyncio.get_running_loop()
        plain = small_buffers(server.port)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        caller = ssl.create_default_context(cafile=certificate).wrap_bio(
            incoming, outgoing, server_hostname="127.0.0.1"
        )

        async def tls(step: Callable[[], object]) -> None:
            while True:
                with contextlib.suppress(ssl.SSLWantReadError):
                    step()
                    break
                await loop.sock_sendall(plain, outgoing.read())
                incoming.write(await loop.sock_recv(plain, 1 << 16))
            await loop.sock_sendall(plain, outgoing.read())

        await tls(caller.do_handshake)
        await tls(lambda: caller.write(GET_1_0))
        await until(lambda: bool(opened) and opened[0]._written > 0)
        if act is None:
            with contextlib.suppress(ssl.SSLWantReadError):
                caller.unwrap()
            await loop.sock_sendall(plain, outgoing.read())
        else:
            await act(plain, server)
        await until(lambda: opened[0]._lost)
        with plain, pytest.raises(ConnectionResetError):
            await read_all(plain)


async def test_a_complete_response_ends_with_the_connection_however_long_it_is_read(
    monkeypatch: pytest.MonkeyPatch, opened: list[Connection]
) -> None:
    monkeypatch.setattr(http1, "LINGER_SECONDS", 0.0)
    ticked = asyncio.Event()
    tick = Connection.tick

    def watched(connection: Connection, now: float) -> None:
        tick(connection, now)
        if connection._lingered >= 0:
            ticked.set()

    monkeypatch.setattr(Connection, "tick", watched)
    async with served(leave_the_rest_to_the_server) as server:
        with small_buffers(server.port) as caller:
            await asyncio.get_running_loop().sock_sendall(caller, UPLOAD_1_0)
            await ticked.wait()
            assert len(await read_all(caller)) > len(LARGE)


# --- the end


async def test_a_drain_closes_idle_connections_and_lets_requests_end() -> None:
    going = asyncio.Event()

    async def slow(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send(start())
        await send(part(b"abc"))
        await going.wait()
        await send(part(b"def", more=False))

    async with served(slow, graceful=30) as server:
        idle, busy = await server.connect(), await server.connect()
        busy.writer.write(GET)
        await busy.head()
        server.stop.set()
        assert await idle.rest() == b""
        going.set()
        assert (await busy.rest()).endswith(b"3\r\ndef\r\n0\r\n\r\n")
        for caller in (idle, busy):
            caller.writer.close()
        with pytest.raises(ConnectionRefusedError):
            await server.connect()


async def test_a_connection_that_was_opened_just_before_a_drain_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http1, "FIRST_REQUEST_SECONDS", PATIENCE)
    async with served(Echo(), graceful=30) as server:
        callers = new, silent, idle = [await server.connect() for _ in range(3)]
        for caller in (idle, idle):
            caller.writer.write(GET)
            await caller.exactly(len(await caller.head()) and len(b"GET /a|"))
        server.stop.set()
        assert await idle.rest() == b""
        new.writer.write(GET)
        assert (await new.rest()).endswith(b"GET /a|")
        monkeypatch.setattr(http1, "FIRST_REQUEST_SECONDS", 0.0)
        assert await silent.rest() == b""
        for caller in callers:
            caller.writer.close()


async def test_a_stopping_server_still_serves_and_closes_each_connection() -> None:
    leaving = False
    async with served(Echo(), is_leaving=lambda: leaving) as server:
        kept = await server.connect()
        kept.writer.write(GET)
        assert b"connection: close" not in await kept.head()
        leaving = True
        assert b"connection: close" in await server.talk(GET)
        kept.writer.write(GET)
        assert (await kept.rest()).count(b"connection: close") == 1
        kept.writer.close()


async def test_requests_that_outlive_the_drain_are_aborted_with_the_reason() -> None:
    app = Holding(start(), part(b"abc"))
    async with served(app, graceful=0.3) as server:
        caller = await server.connect()
        caller.writer.write(GET)
        await caller.head()
        server.stop.set()
        answer = await caller.rest()
        caller.writer.close()
    assert not answer.endswith(b"0\r\n\r\n")
    assert app.reasons in (["shutdown"], [])
