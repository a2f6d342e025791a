"""Open connections to one origin: look up its name, connect, speak TLS, and pass a forward proxy."""

import asyncio
import base64
import errno
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import aiohappyeyeballs
import httpx2
import msgspec
from aiohappyeyeballs import AddrInfoType

from proxy.upstream.http1 import ArrivingResponse, request_head
from proxy.wire.headers import DEFAULT_PORTS, Headers

ADDRESSES_SECONDS: Final = 10.0
"""How long the addresses of a name are used."""
NEXT_ADDRESS_SECONDS: Final = 0.25
"""How long one address may take before the next one is tried as well (RFC 8305 5)."""
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})

P = TypeVar("P", bound=asyncio.Protocol)


class Dialer:
    """Opens connections to one origin.

    Args:
        origin: Scheme, host and port.
        tls: The TLS context for an https origin.
        proxy: The URL of a forward proxy, if there is one.
    """

    def __init__(self, origin: str, *, tls: ssl.SSLContext | None, proxy: str | None) -> None:
        url = urlsplit(origin)
        via = None if proxy is None else urlsplit(proxy)
        first = via or url
        self.host, self.port = _place(url)
        self.request_host = url.netloc.encode()
        """The value of the Host header."""
        self.target_prefix = b""
        """What a forward proxy expects before the target of a request that it can read (RFC 9112 3.2.2)."""
        self.proxy_headers: Headers = []
        """Headers for a forward proxy that can read the request."""
        needed = tls or ssl.create_default_context() if "https" in {url.scheme, first.scheme} else None
        self._first = _Host(*_place(first))
        self._first_tls = needed if first.scheme == "https" else None
        self._tunnel_tls = needed if via is not None and url.scheme == "https" else None
        """The TLS context for an origin behind a forward proxy."""
        self._tunnel_headers = [] if via is None else _authorization(via)
        if via is not None and self._tunnel_tls is None:
            self.target_prefix, self.proxy_headers = origin.encode(), self._tunnel_headers

    async def open(self, build: Callable[[socket.socket], P], seconds: float | None) -> P:
        """Open a connection.

        Args:
            build: Makes the protocol of a connected socket.
            seconds: The timeout for all of it.

        Raises:
            httpx2.ConnectTimeout, httpx2.ConnectError, httpx2.ProxyError: There is no connection.
            httpx2.PoolTimeout: This process has no file descriptor left.
        """
        try:
            async with asyncio.timeout(seconds):
                try:
                    return await self._open(build)
                except OSError as error:
                    raise _connect_error(error) from error
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("no connection in time") from error

    async def _open(self, build: Callable[[socket.socket], P]) -> P:
        loop = asyncio.get_running_loop()
        connected = await aiohappyeyeballs.start_connection(
            await self._first.addresses(), happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1
        )
        tls, name = self._first_tls, self._first.name
        server_name = None if tls is None else _server_name(name)
        try:
            if self._tunnel_tls is None:
                _, protocol = await loop.create_connection(
                    lambda: build(connected), sock=connected, ssl=tls, server_hostname=server_name
                )
                return protocol
            plain, asked = await loop.create_connection(
                _ProxyConnection, sock=connected, ssl=tls, server_hostname=server_name
            )
            try:
                return await self._pass_proxy(plain, asked.response, build(connected), self._tunnel_tls)
            except BaseException:  # also a cancellation
                plain.abort()
                raise
        except BaseException:  # also a cancellation
            connected.close()
            raise

    async def _pass_proxy(
        self, plain: asyncio.Transport, response: ArrivingResponse, protocol: P, tls: ssl.SSLContext
    ) -> P:
        """Ask the proxy for a connection to the origin (RFC 9110 9.3.6), and speak TLS through it."""
        place = _netloc(self.host, self.port)
        plain.write(request_head("CONNECT", place, place, self._tunnel_headers, 0))
        try:
            await response.head()
        except httpx2.TransportError as error:
            raise httpx2.ProxyError("the proxy did not answer CONNECT") from error
        if response.status != HTTPStatus.OK or response.surplus:
            raise httpx2.ProxyError(f"{response.status} from the proxy")
        secured = await asyncio.get_running_loop().start_tls(
            plain, protocol, tls, server_hostname=_server_name(self.host)
        )
        if secured is None:
            raise ConnectionAbortedError
        protocol.connection_made(secured)
        return protocol


class _ProxyConnection(asyncio.Protocol):
    """The connection to a forward proxy until it leads to the origin."""

    def __init__(self) -> None:
        self.response = ArrivingResponse("CONNECT")

    def data_received(self, data: bytes) -> None:
        if self.response.ended:
            self.response.surplus = True
        self.response.feed(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.response.lost(exc)


class _Lookup(msgspec.Struct):
    """One lookup of a name, for which all connections wait that need it."""

    done: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    error: OSError | None = None


class _Host:
    """A host name or address, and where it is now."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self._port = name, port
        self._addresses: Sequence[AddrInfoType] = []
        self._fresh_until = float("-inf")
        self._lookup: _Lookup | None = None
        with suppress(socket.gaierror, UnicodeError):
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            self._addresses = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
            self._fresh_until = float("inf")

    async def addresses(self) -> Sequence[AddrInfoType]:
        """Return the addresses, after a lookup if the last one is old.

        Raises:
            OSError: The lookup failed.
        """
        loop = asyncio.get_running_loop()
        while loop.time() >= self._fresh_until:
            if self._lookup is None:
                await self._look_up(loop)
            else:
                lookup = self._lookup
                await lookup.done.wait()
                if lookup.error is not None:
                    raise OSError(*lookup.error.args) from lookup.error
        return self._addresses

    async def _look_up(self, loop: asyncio.AbstractEventLoop) -> None:
        self._lookup = lookup = _Lookup()
        try:
            self._addresses = await loop.getaddrinfo(
                self.name, self._port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
            self._fresh_until = loop.time() + ADDRESSES_SECONDS
        except UnicodeError as error:
            lookup.error = socket.gaierror(socket.EAI_NONAME, "not a host name")
            raise lookup.error from error
        except OSError as error:
            lookup.error = error
            raise
        finally:
            self._lookup = None
            lookup.done.set()


def _place(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "", url.port or DEFAULT_PORTS.get(url.scheme, 80)


def _netloc(host: str, port: int) -> bytes:
    return f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode()


def _server_name(host: str) -> str:
    return host.rstrip(".")


def _authorization(proxy: SplitResult) -> Headers:
    if not proxy.username and not proxy.password:
        return []
    words = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}"
    return [(b"Proxy-Authorization", b"Basic " + base64.b64encode(words.encode()))]


def _connect_error(error: OSError) -> httpx2.TransportError:
    # Without a descriptor it is our own limit, not the upstream's fault.
    kind = httpx2.PoolTimeout if error.errno in _NO_DESCRIPTORS else httpx2.ConnectError
    return kind(str(error))
