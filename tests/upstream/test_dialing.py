"""Connections to an origin: its addresses, its certificate, and the forward proxy in between."""

import asyncio
import base64
import socket
import ssl
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from proxy.upstream.dialing import ADDRESSES_SECONDS, Dialer
from proxy.upstream.transport import UpstreamTransport
from tests.ports import free_port
from tests.raw_upstream import Conversation, raw_upstream
from tests.upstream.build import PATIENCE, finish, raw_server, send

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def ok(talk: Conversation) -> None:
    """Answer anything."""
    await talk.answer(b"ok")


class Lookups:
    """A resolver that returns loopback for every name, when the test allows it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names = list[str]()
        self.error: OSError | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo)

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[Any]:
        """Look up a name as the event loop does."""
        self.names.append(host)
        await asyncio.sleep(0)
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]


@pytest.fixture
async def lookups(monkeypatch: pytest.MonkeyPatch) -> Lookups:
    """The name lookups of the test."""
    return Lookups(monkeypatch)


async def connect(dialer: Dialer, count: int) -> list[BaseException | None]:
    """Open connections concurrently, and close them; return how each of them failed."""

    async def once() -> BaseException | None:
        try:
            connection = await dialer.open(lambda connected: Closing(), PATIENCE)
        except httpx2.TransportError as error:
            return error
        assert connection.transport is not None
        connection.transport.close()
        return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(once()) for _ in range(count)]
    return [task.result() for task in tasks]


class Closing(asyncio.Protocol):
    """A connection that is not used."""

    transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport


def dialer_for(url: str, proxy: str | None = None) -> Dialer:
    """Return a dialer without TLS."""
    return Dialer(url.replace("127.0.0.1", "name.test"), tls=None, proxy=proxy)


async def test_connections_that_begin_together_share_one_lookup(lookups: Lookups) -> None:
    async with raw_upstream(ok) as upstream:
        dialer = dialer_for(upstream.url)
        assert await connect(dialer, 20) == [None] * 20
        assert await connect(dialer, 1) == [None]
    assert lookups.names == ["name.test"]


async def test_a_failed_lookup_fails_those_who_wait_and_no_later_ones(lookups: Lookups) -> None:
    async with raw_upstream(ok) as upstream:
        dialer = dialer_for(upstream.url)
        lookups.error = socket.gaierror(socket.EAI_NONAME, "unknown")
        assert {type(error) for error in await connect(dialer, 5)} == {httpx2.ConnectError}
        assert len(lookups.names) == 1
        lookups.error = None
        assert await connect(dialer, 1) == [None]


async def test_a_lookup_that_is_cancelled_is_taken_over(lookups: Lookups) -> None:
    lookups.go_on.clear()
    async with raw_upstream(ok) as upstream:
        dialer = dialer_for(upstream.url)
        with pytest.raises(httpx2.ConnectTimeout):
            await dialer.open(lambda connected: Closing(), 0)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(connect(dialer, 1))
            second = group.create_task(connect(dialer, 1))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            first.cancel()
            lookups.go_on.set()
        assert second.result() == [None]


async def test_an_old_lookup_is_repeated(lookups: Lookups, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    async with raw_upstream(ok) as upstream:
        dialer = dialer_for(upstream.url)
        assert await connect(dialer, 1) == [None]
        now = loop.time()
        with monkeypatch.context() as later:
            later.setattr(loop, "time", lambda: now + ADDRESSES_SECONDS)
            assert await connect(dialer, 1) == [None]
    assert len(lookups.names) == 2


async def test_an_address_needs_no_lookup(lookups: Lookups) -> None:
    async with raw_upstream(ok) as upstream, UpstreamTransport(tls=False) as transport:
        assert await finish(await send(transport, upstream.url)) == b"ok"
    assert lookups.names == []


async def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(_host: str, port: int, **_: object) -> list[Any]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
        return [(*kind, ("127.0.0.2", free)), (*kind, ("127.0.0.1", port))]

    free = free_port()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    async with raw_upstream(ok) as upstream:
        assert await connect(dialer_for(upstream.url), 1) == [None]


async def test_a_timeout_leaves_no_connection(certificate: Path) -> None:
    gone = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass
        gone.set()

    tls = ssl.create_default_context(cafile=str(certificate))
    async with raw_server(say_nothing) as place:
        with pytest.raises(httpx2.ConnectTimeout):
            await Dialer(f"https://{place}", tls=tls, proxy=None).open(lambda connected: Closing(), 0.05)
        async with asyncio.timeout(PATIENCE):
            await gone.wait()


# --- through a forward proxy


class ForwardProxy:
    """A forward proxy that opens tunnels, and records their targets."""

    def __init__(self, extra: bytes = b"") -> None:
        self.heads = list[bytes]()
        self._extra = extra

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.heads.append(head := await reader.readuntil(b"\r\n\r\n"))
        port = int(head.split()[1].rpartition(b":")[2])
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n" + self._extra)
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(reader, there_writer))
            group.create_task(_copy(there_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request of a connection."""
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(OK)


@pytest.mark.parametrize("is_proxy_secure", [False, True], ids=["http proxy", "https proxy"])
async def test_a_tunnel_leads_to_an_origin_that_proves_its_name(
    certificate: Path,
    is_proxy_secure: bool,  # noqa: FBT001
) -> None:
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate)
    tls = ssl.create_default_context(cafile=str(certificate))
    forward = ForwardProxy()
    async with (
        raw_server(answer, ours) as origin,
        raw_server(forward.serve, ours if is_proxy_secure else None) as place,
    ):
        address = f"{'https' if is_proxy_secure else 'http'}://us%40er:p%20w@{place}"
        async with UpstreamTransport(tls=tls, proxy=address) as transport:
            assert await finish(await send(transport, f"https://{origin}")) == b"ok"
    credentials = base64.b64encode(b"us@er:p w").decode()
    assert forward.heads[0].decode().split("\r\n") == [
        f"CONNECT {origin} HTTP/1.1",
        f"Host: {origin}",
        f"Proxy-Authorization: Basic {credentials}",
        "",
        "",
    ]


async def test_a_proxy_cannot_stand_in_for_the_origin(certificate: Path) -> None:
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate)
    forward = ForwardProxy()
    async with (
        raw_server(answer, ours) as origin,
        raw_server(forward.serve) as place,
        UpstreamTransport(tls=ssl.create_default_context(), proxy=f"http://{place}") as transport,
    ):
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            await send(transport, f"https://{origin}")


async def test_bytes_before_the_tunnel_are_rejected(certificate: Path) -> None:
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate)
    tls = ssl.create_default_context(cafile=str(certificate))
    forward = ForwardProxy(extra=OK)
    async with (
        raw_server(answer, ours) as origin,
        raw_server(forward.serve) as place,
        UpstreamTransport(tls=tls, proxy=f"http://{place}") as transport,
    ):
        with pytest.raises(httpx2.ProxyError):
            await send(transport, f"https://{origin}")


async def test_a_proxy_that_hangs_up_has_not_sent_the_request() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with (
        raw_server(hang_up) as place,
        UpstreamTransport(tls=False, proxy=f"http://{place}") as transport,
    ):
        with pytest.raises(httpx2.ProxyError):
            await send(transport, "https://name.test")


async def test_a_request_that_the_proxy_can_read_has_its_password_and_no_other_does() -> None:
    async with raw_upstream(ok) as forward:
        address = forward.url.replace("//", "//user:word@")
        async with UpstreamTransport(tls=False, proxy=address) as transport:
            await finish(await send(transport, "http://name.test:81", b"/v1/x"))
        async with UpstreamTransport(tls=False) as transport:
            await finish(await send(transport, forward.url, b"/v1/x"))
    through, direct = forward.requests
    assert through.target == b"http://name.test:81/v1/x"
    assert through.header("host") == ["name.test:81"]
    assert through.header("proxy-authorization") == ["Basic " + base64.b64encode(b"user:word").decode()]
    assert direct.header("proxy-authorization") == []
