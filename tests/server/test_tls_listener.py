"""TLS handshakes in progress: their limit, their timeout, and the end of the server."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from proxy.server import http1, serve, tls_listener
from proxy.server.limits import ConnectionLimits
from proxy.server.serve import Server
from proxy.server.tls_listener import TlsListener
from tests.loopback import until
from tests.pace import PATIENCE
from tests.server.conftest import Caller, Echo, Served, served
from tests.server.raw import GET, LAST, bodies, refusal
from tests.tls_servers import make_certificate

PATIENT = ConnectionLimits(head_seconds=10 * PATIENCE)
"""No handshake of a test ends by its timeout."""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for loopback, and its key."""
    return make_certificate(tmp_path)


@pytest.fixture
def handshakes(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The handshakes that the server has begun."""
    begun = list[object]()
    run = Server.run_handshake

    def recorded(server: Server, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        begun.append(work)
        return run(server, work)

    monkeypatch.setattr(Server, "run_handshake", recorded)
    return begun


async def trusting(server: Served, certificate: Path) -> Caller:
    """Open a connection with TLS."""
    context = ssl.create_default_context(cafile=certificate)
    async with asyncio.timeout(PATIENCE):
        return Caller(*await asyncio.open_connection("127.0.0.1", server.port, ssl=context))


async def served_body(server: Served, certificate: Path) -> list[bytes]:
    """Send a request with TLS; return the body of its response."""
    caller = await trusting(server, certificate)
    caller.writer.write(LAST)
    try:
        return bodies(await caller.rest())
    finally:
        caller.writer.close()


async def test_callers_are_served_beside_silent_handshakes(
    certificate: Path, handshakes: list[object]
) -> None:
    async with served(Echo(), PATIENT, max_connections=1, certificate=certificate) as server:
        silent = [await server.connect() for _ in range(5)]
        await until(lambda: len(handshakes) == len(silent))
        assert await served_body(server, certificate) == [b"GET /z|"]
        for caller in silent:
            assert not caller.reader.at_eof()
            caller.writer.close()


async def test_beyond_the_limit_the_oldest_handshake_ends_and_the_new_caller_is_served(
    certificate: Path, handshakes: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "SURPLUS_MAX", 3)
    async with served(Echo(), PATIENT, max_connections=2, certificate=certificate) as server:
        silent = list[Caller]()
        for _ in range(5):
            silent.append(await server.connect())
            await until(lambda: len(handshakes) == len(silent))
        assert await served_body(server, certificate) == [b"GET /z|"]
        assert await silent[0].rest() == b""
        assert not any(caller.reader.at_eof() for caller in silent[1:])
        for caller in silent:
            caller.writer.close()


async def test_beyond_the_limit_a_connection_is_closed_at_once_if_no_handshake_is_in_progress(
    certificate: Path, handshakes: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "SURPLUS_MAX", 0)
    async with served(Echo(), PATIENT, max_connections=1, certificate=certificate) as server:
        first = await trusting(server, certificate)
        first.writer.write(GET)
        await first.head()
        assert await server.talk(b"") == b""
        assert len(handshakes) == 1
        first.writer.close()


async def test_a_silent_handshake_ends_with_the_timeout_of_a_head(certificate: Path) -> None:
    async with served(Echo(), ConnectionLimits(head_seconds=0.2), certificate=certificate) as server:
        assert await server.talk(b"") == b""


async def test_a_connection_with_tls_beyond_the_limit_is_503(certificate: Path) -> None:
    async with served(Echo(), max_connections=0, certificate=certificate) as server:
        caller = await trusting(server, certificate)
        assert refusal(await caller.rest())[0] == 503
        caller.writer.close()


async def test_a_caller_without_tls_is_disconnected_and_not_logged(
    certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(Echo(), PATIENT, certificate=certificate) as server:
        assert not (await server.talk(LAST)).startswith(b"HTTP/")
        assert await served_body(server, certificate) == [b"GET /z|"]
    assert not caplog.records


async def test_only_the_transport_closes_the_socket_of_a_handshake_that_has_begun(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = list[socket.socket]()
    monkeypatch.setattr(tls_listener, "_close_if_unused", lambda accepted, _: ended.append(accepted))
    async with served(Echo(), PATIENT, certificate=certificate) as server:
        assert await served_body(server, certificate) == [b"GET /z|"]
        await until(lambda: bool(ended))
        assert [accepted.fileno() for accepted in ended] == [-1]


# --- the end of the server


async def test_a_silent_handshake_does_not_delay_the_end(
    certificate: Path, handshakes: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "FIRST_REQUEST_SECONDS", 0.05)
    async with served(Echo(), PATIENT, graceful=10 * PATIENCE, certificate=certificate) as server:
        silent = await server.connect()
        await until(lambda: bool(handshakes))
        server.stop.set()
        assert await silent.rest() == b""
        silent.writer.close()


async def test_a_handshake_that_began_before_the_drain_is_completed_and_its_request_served(
    certificate: Path, handshakes: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (serve, http1):
        monkeypatch.setattr(module, "FIRST_REQUEST_SECONDS", PATIENCE)
    draining = asyncio.Event()
    drain = Server.drain

    async def reported(server: Server, seconds: float) -> None:
        draining.set()
        await drain(server, seconds)

    monkeypatch.setattr(Server, "drain", reported)
    async with served(Echo(), PATIENT, graceful=10 * PATIENCE, certificate=certificate) as server:
        caller = await server.connect()
        await until(lambda: bool(handshakes))
        server.stop.set()
        await draining.wait()
        async with asyncio.timeout(PATIENCE):
            await caller.writer.start_tls(
                ssl.create_default_context(cafile=certificate), server_hostname="127.0.0.1"
            )
        caller.writer.write(LAST)
        assert bodies(await caller.rest()) == [b"GET /z|"]
        caller.writer.close()


# --- the listening socket


class Exhausted(socket.socket):
    """A listening socket for which the process has no descriptor the first time."""

    failed = False

    def accept(self) -> tuple[socket.socket, Any]:
        """Fail once, and then accept."""
        if not self.failed:
            self.failed = True
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


class Owner:
    """The owner of one handshake."""

    def __init__(self) -> None:
        self.begun = asyncio.get_running_loop().create_future()

    def make_room(self) -> bool:
        """Accept every connection."""
        return True

    def run_handshake(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run it in a task."""
        task = asyncio.get_running_loop().create_task(work)
        self.begun.set_result(task)
        return task


async def test_accepting_continues_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_listener, "RETRY_SECONDS", 0.05)
    reported = list[dict[str, Any]]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: reported.append(context))
    owner, listening = Owner(), Exhausted()
    listening.bind(("127.0.0.1", 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listener = TlsListener(owner, listening, 10, asyncio.Protocol, context, PATIENCE)
    with socket.create_connection(listening.getsockname()):
        async with asyncio.timeout(PATIENCE):
            handshake = await owner.begun
    listener.close()
    async with asyncio.timeout(PATIENCE):
        await handshake
    assert [context["exception"].errno for context in reported] == [errno.EMFILE]


async def test_a_listener_that_is_closed_after_an_error_stays_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_listener, "RETRY_SECONDS", 0.0)
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: failed.set())
    owner, listening = Owner(), Exhausted()
    listening.bind(("127.0.0.1", 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listener = TlsListener(owner, listening, 10, asyncio.Protocol, context, PATIENCE)
    with socket.create_connection(listening.getsockname()):
        async with asyncio.timeout(PATIENCE):
            await failed.wait()
        listener.close()
        await asyncio.sleep(0)
    assert not owner.begun.done()


class Hasty(Owner):
    """An owner that cancels a handshake before it begins."""

    def run_handshake(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Cancel it at once."""
        task = super().run_handshake(work)
        task.cancel()
        return task


async def test_a_handshake_that_is_cancelled_before_it_begins_leaves_no_connection() -> None:
    owner, listening = Hasty(), socket.socket()
    listening.bind(("127.0.0.1", 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listener = TlsListener(owner, listening, 10, asyncio.Protocol, context, PATIENCE)
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        assert await reader.read() == b""
    writer.close()
    listener.close()
