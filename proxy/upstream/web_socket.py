"""WebSockets to upstreams, through aiohttp: each has a connection of its own, which serves nothing else."""

import asyncio
import contextlib
import errno
import re
import ssl
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NamedTuple, cast

import aiohttp
import httpx2
from multidict import CIMultiDict
from yarl import URL

from proxy.wire.headers import Headers
from proxy.wire.websocket import GOING_AWAY, LOST, MESSAGE_BYTES_MAX, NO_CODE, Close

HEADER_BYTES_MAX: Final = 64 * 1024
REFUSAL_BYTES_MAX: Final = 1024 * 1024
HEARTBEAT_SECONDS: Final = 50.0
"""A WebSocket gets a ping after this much silence, and counts as lost without a pong after half of it."""
CLOSE_SECONDS: Final = 2.0
_MESSAGES: Final = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)
_ADDED_BY_AIOHTTP: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
_URL: Final = re.compile(r"https?://\S+")


class Handshake(NamedTuple):
    """The response to the handshake of a WebSocket.

    Args:
        status: Its status.
        headers: Its headers.
        http_version: Such as `1.1`.
        body: The whole body of a rejection.
        socket: The WebSocket, if it is open.
    """

    status: int
    headers: Headers
    http_version: str
    body: bytes = b""
    socket: "ArrivingMessages | None" = None


class SocketOpener:
    """Opens WebSockets to one upstream. Construct it where the event loop runs.

    Args:
        tls: The TLS context for an https upstream.
        proxy: URL of a forward proxy, if there is one; the environment is not read.
    """

    def __init__(self, *, tls: ssl.SSLContext | bool, proxy: str | None) -> None:
        self._proxy = proxy
        # No limit here, where callers would wait unseen: the client counts and rejects.
        self._connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=tls)

    async def open(
        self,
        origin: str,
        target: bytes,
        headers: Headers,
        subprotocols: Sequence[str],
        *,
        connect: float | None,
    ) -> Handshake:
        """Send the handshake of a WebSocket (RFC 6455 4.1).

        Raises:
            httpx2.TransportError: There is no response.
        """
        responses: list[tuple[aiohttp.ClientResponse, bytes]] = []
        try:
            async with aiohttp.ClientSession(  # for this handshake alone: it keeps the response that rejects
                connector=self._connector,
                connector_owner=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=_ADDED_BY_AIOHTTP,
                trust_env=False,
                max_line_size=HEADER_BYTES_MAX,
                max_field_size=HEADER_BYTES_MAX,
                timeout=aiohttp.ClientTimeout(total=None, connect=connect),
                trace_configs=[_keep_responses(responses)],
            ) as session:
                socket = await session.ws_connect(
                    URL(f"ws{origin.removeprefix('http')}{target.decode()}", encoded=True),
                    headers=CIMultiDict((name.decode(), value.decode()) for name, value in headers),
                    protocols=subprotocols,
                    proxy=self._proxy,
                    heartbeat=HEARTBEAT_SECONDS,
                    max_msg_size=MESSAGE_BYTES_MAX,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
                )
        except (aiohttp.ClientError, OSError) as error:
            if not responses or responses[0][0].status == HTTPStatus.SWITCHING_PROTOCOLS:
                raise _translated(error) from error
            return _handshake(*responses[0])
        return _handshake(*responses[0], ArrivingMessages(socket))

    async def aclose(self) -> None:
        """Close every WebSocket."""
        await self._connector.close()


class ArrivingMessages:
    """A WebSocket to an upstream."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.subprotocol = socket.protocol

    async def receive(self) -> str | bytes | Close:
        """Return the next message, or how the upstream closed; a lost connection is code 1006."""
        message = await self._socket.receive()
        if message.type in _MESSAGES:
            return cast(str | bytes, message.data)
        if message.type is aiohttp.WSMsgType.CLOSE:
            return Close(message.data or NO_CODE, message.extra or "")
        if message.type is aiohttp.WSMsgType.ERROR and isinstance(message.data, aiohttp.WebSocketError):
            return Close(message.data.code)  # without the text, which may quote what the upstream sent
        return Close(LOST)

    async def send(self, message: str | bytes) -> None:
        """Send a message after the upstream has taken enough of the previous ones.

        Raises:
            httpx2.TransportError: the connection is lost.
        """
        try:
            if isinstance(message, str):
                await self._socket.send_str(message)
            else:
                await self._socket.send_bytes(message)
        except (aiohttp.ClientError, OSError) as error:
            raise _translated(error) from error

    async def close(self, close: Close) -> None:
        """Close the WebSocket, and wait a moment for the upstream to close it too."""
        with contextlib.suppress(TimeoutError):
            # aiohttp restarts its own timeout with each message that still arrives.
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._socket.close(code=close.code, message=close.reason.encode())

    async def aclose(self) -> None:
        """Close the WebSocket if it is open."""
        await self.close(Close(GOING_AWAY))


def _keep_responses(responses: list[tuple[aiohttp.ClientResponse, bytes]]) -> aiohttp.TraceConfig:
    """Read the response that rejects a handshake before aiohttp drops it, and follow no redirect."""
    trace = aiohttp.TraceConfig()

    async def keep(_session: object, _context: object, ended: aiohttp.TraceRequestEndParams) -> None:
        response, held = ended.response, bytearray()
        if response.status != HTTPStatus.SWITCHING_PROTOCOLS:
            while chunk := await response.content.readany():
                held += chunk
                if len(held) > REFUSAL_BYTES_MAX:
                    raise aiohttp.ClientPayloadError
        responses.append((response, bytes(held)))

    async def redirected(
        _session: object, _context: object, params: aiohttp.TraceRequestRedirectParams
    ) -> None:
        params.response.close()
        responses.append((params.response, b""))
        raise aiohttp.ClientPayloadError

    trace.on_request_end.append(keep)
    trace.on_request_redirect.append(redirected)
    return trace


def _handshake(
    response: aiohttp.ClientResponse, body: bytes, socket: ArrivingMessages | None = None
) -> Handshake:
    version = response.version or aiohttp.HttpVersion11
    number = f"{version.major}.{version.minor}"
    return Handshake(response.status, list(response.raw_headers), number, body, socket)


def _translated(error: Exception) -> httpx2.TransportError:
    """Return the httpx2 error for an error of aiohttp."""
    kind = next((to for of, to in _ERRORS if isinstance(error, of)), httpx2.ReadError)
    if getattr(error, "errno", None) in _NO_DESCRIPTORS:
        kind = httpx2.PoolTimeout  # our own limit, not the upstream's fault
    translated = kind(_words(error))
    translated.__cause__ = error  # for an explanation before it is raised
    return translated


def _words(error: Exception) -> str:
    """Return the text of an error without URLs: a query may hold a token, and a proxy's URL a password."""
    return _URL.sub("(URL)", str(error))


# The first match counts, so subclasses come before their bases.
_ERRORS: Final[list[tuple[type[Exception], type[httpx2.TransportError]]]] = [
    (aiohttp.ConnectionTimeoutError, httpx2.ConnectTimeout),
    (aiohttp.ServerTimeoutError, httpx2.ReadTimeout),
    (aiohttp.ServerDisconnectedError, httpx2.RemoteProtocolError),
    (aiohttp.ClientHttpProxyError, httpx2.ProxyError),
    (aiohttp.ClientConnectorError, httpx2.ConnectError),
    (aiohttp.ClientResponseError, httpx2.RemoteProtocolError),
]
