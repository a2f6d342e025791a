"""Send requests to one upstream through aiohttp.

The relay calls `AiohttpTransport.send`; the SDK's own methods use the same connections, through the interface
of an httpx2 transport. The SDK ships such a transport too. This one differs where a relay must: the request
target goes out as received (the SDK's decodes `%2F`), a lost connection is not reported as a timeout, no
header is added, and each read returns all that has arrived.
"""

import asyncio
import contextlib
import errno
import functools
import io
import re
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from http import HTTPStatus
from typing import Final, cast

import aiohttp
import httpx2
from multidict import CIMultiDict
from yarl import URL

from proxy.upstream.connections import UpstreamConnector, UpstreamHttpRequest, send_again_if_stale
from proxy.upstream.redacted import RedactedBody, without_coding
from proxy.wire.headers import Headers
from proxy.wire.redaction import Redactor
from proxy.wire.websocket import GOING_AWAY, LOST, MESSAGE_BYTES_MAX, NO_CODE, Close

HEADER_BYTES_MAX: Final = 64 * 1024
# A larger body is written in pieces: as a whole it would block the event loop, and aiohttp warns about it.
WHOLE_BODY_BYTES_MAX: Final = 1024 * 1024
# A WebSocket gets a ping after this much silence, and counts as lost without a pong after half of it.
HEARTBEAT_SECONDS: Final = 50.0
CLOSE_SECONDS: Final = 2.0
_MESSAGES: Final = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)
_ADDED_BY_AIOHTTP: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_FRAMING: Final = frozenset({b"host", b"content-length", b"transfer-encoding"})
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
_URL: Final = re.compile(r"https?://\S+")
_open_session: Final = functools.partial(
    aiohttp.ClientSession,
    request_class=UpstreamHttpRequest,
    auto_decompress=False,
    skip_auto_headers=_ADDED_BY_AIOHTTP,
    trust_env=False,
    max_line_size=HEADER_BYTES_MAX,
    max_field_size=HEADER_BYTES_MAX,
)


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends requests over one aiohttp session. Construct it where the event loop runs.

    Args:
        tls: The TLS context for https upstreams.
        proxy: URL of a forward proxy, if there is one; the environment is not read.
        connector: Opens the connections; by default a new one with `tls`.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | bool,
        proxy: str | None = None,
        connector: UpstreamConnector | None = None,
    ) -> None:
        self._proxy = proxy
        self._timeouts: dict[float | None, aiohttp.ClientTimeout] = {}
        self._session = _open_session(
            connector=connector or UpstreamConnector(tls=tls),
            middlewares=[send_again_if_stale],
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def send(
        self,
        method: str,
        origin: str,
        target: bytes,
        headers: Headers,
        body: bytes | AsyncIterable[bytes],
        *,
        connect: float | None,
    ) -> "UpstreamResponse":
        """Send one request; the body of the response is unread.

        Args:
            method: The HTTP method.
            origin: Scheme, host and port of the upstream.
            target: The raw request target.
            headers: All headers except Host and the framing of the body, which are added.
            body: The whole body, or a stream.
            connect: The timeout for the connection, in seconds.

        Raises:
            httpx2.TransportError: There is no response.
        """
        data: bytes | io.BytesIO | AsyncIterable[bytes] | None = body
        if isinstance(body, bytes):
            data = io.BytesIO(body) if len(body) > WHOLE_BODY_BYTES_MAX else body or None
        try:
            response = await self._session.request(
                method,
                URL(f"{origin}{target.decode()}", encoded=True),
                headers=_decode(headers),
                data=data,
                allow_redirects=False,
                timeout=self._timeout(connect),
                proxy=self._proxy,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _translated(error) from error
        return UpstreamResponse(response)

    def _timeout(self, connect: float | None) -> aiohttp.ClientTimeout:
        if connect not in self._timeouts:  # one for each upstream, and one for the SDK
            self._timeouts[connect] = aiohttp.ClientTimeout(total=None, connect=connect)
        return self._timeouts[connect]

    async def open_socket(
        self,
        origin: str,
        target: bytes,
        headers: Headers,
        subprotocols: Sequence[str],
        *,
        connect: float | None,
    ) -> "UpstreamResponse":
        """Send the handshake of a WebSocket (RFC 6455 4.1); if it succeeds, the response has a `socket`.

        Raises:
            httpx2.TransportError: There is no response.
        """
        responses: list[tuple[aiohttp.ClientResponse, bytes]] = []
        try:
            async with _open_session(  # for this handshake alone: it keeps the response that refuses
                connector=self._session.connector,
                connector_owner=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=connect),
                trace_configs=[_keep_responses(responses)],
            ) as session:
                socket = await session.ws_connect(
                    URL(f"ws{origin.removeprefix('http')}{target.decode()}", encoded=True),
                    headers=_decode(headers),
                    protocols=subprotocols,
                    proxy=self._proxy,
                    heartbeat=HEARTBEAT_SECONDS,
                    max_msg_size=MESSAGE_BYTES_MAX,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
                )
        except (aiohttp.ClientError, OSError) as error:
            if not responses or responses[0][0].status == HTTPStatus.SWITCHING_PROTOCOLS:
                raise _translated(error) from error
            refusal, held = responses[0]
            return UpstreamResponse(refusal, whole=held)
        handshake, _ = responses[0]
        return UpstreamResponse(handshake, socket=ArrivingMessages(socket))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request of the SDK's own methods."""
        url = request.url
        headers = [pair for pair in request.headers.raw if pair[0].lower() not in _FRAMING]
        try:
            body: bytes | AsyncIterable[bytes] = request.content
        except httpx2.RequestNotRead:
            body = cast(httpx2.AsyncByteStream, request.stream)
        response = await self.send(
            request.method,
            f"{url.scheme}://{url.netloc.decode()}",
            url.raw_path,
            headers,
            body,
            connect=request.extensions["timeout"]["connect"],
        )
        return httpx2.Response(response.status, headers=response.headers, stream=response, request=request)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()


class UpstreamResponse(httpx2.AsyncByteStream):
    """The response of an upstream, whose body is read as it arrives.

    It is also the stream of an httpx2 response, for the SDK.

    Args:
        response: The response of aiohttp.
        whole: The whole body, if it has been read.
        socket: The WebSocket that a handshake has opened.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        *,
        whole: bytes | None = None,
        socket: "ArrivingMessages | None" = None,
    ) -> None:
        self.status = response.status
        self.headers: Headers = list(response.raw_headers)
        self.socket = socket
        self.redact: Callable[[bytes], bytes] = bytes
        """Masks the secrets that were sent to the upstream, in bytes of this response."""
        self._response = response
        self._peeked = whole or b""
        self._ended = whole is not None
        self._masked: RedactedBody | None = None
        self._translate: Callable[[httpx2.TransportError], Exception] | None = None
        self._closed: Callable[[], None] | None = None

    @property
    def http_version(self) -> str:
        """Such as `1.1`."""
        version = self._response.version
        return "1.1" if version is None else f"{version.major}.{version.minor}"

    def prepare(
        self,
        redactor: Redactor,
        translate: Callable[[httpx2.TransportError], Exception],
        closed: Callable[[], None],
    ) -> None:
        """Make the response ready for the relay.

        Args:
            redactor: Masks secrets in the headers, and in the body of an error.
            translate: Returns the error that `read` raises if the body breaks off.
            closed: Called when the response is closed.
        """
        self._translate, self._closed, self.redact = translate, closed, redactor.redact
        headers = self.headers
        self.headers = redactor.redact_values(headers)
        if redactor and self.status >= HTTPStatus.BAD_REQUEST:
            self._masked = RedactedBody(self._receive, redactor, headers)
            self.headers = without_coding(self.headers)

    async def peek(self, limit: int) -> bytes:
        """Return the beginning of the body, up to its end or some way beyond `limit`; it stays unread."""
        seen = bytearray()
        while len(seen) <= limit and (chunk := await self.read()):
            seen += chunk
        self._peeked = bytes(seen)
        return self._peeked

    async def read(self) -> bytes:
        """Return the bytes that have arrived, after a wait for the first one; none at the end of the body.

        Raises:
            httpx2.TransportError: The connection broke, or the body ended before its announced length. After
                `prepare`, it is the error that `translate` returns.
            BadResponse: The body of an error cannot be read to mask secrets in it.
        """
        return await (self._receive() if self._masked is None else self._masked.read())

    async def _receive(self) -> bytes:
        if self._peeked:
            peeked, self._peeked = self._peeked, b""
            return peeked
        if self._ended:
            return b""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            failure = _translated(error)
            if self._translate is None:
                raise failure from error
            raise self._translate(failure) from failure

    def fail(self, error: Exception) -> None:
        """Make the read that waits, or the next one, raise this error."""
        self._response.content.set_exception(error)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def aclose(self) -> None:
        """Close the WebSocket, or return the connection to the pool if the body was read to its end."""
        if self._closed is not None:
            self._closed()
        if self.socket is not None:
            await self.socket.aclose()
        else:
            self._response.release()


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
    """Read the response that refuses a handshake before aiohttp drops it, and follow no redirect."""
    trace = aiohttp.TraceConfig()

    async def keep(_session: object, _context: object, ended: aiohttp.TraceRequestEndParams) -> None:
        response, held = ended.response, bytearray()
        if response.status != HTTPStatus.SWITCHING_PROTOCOLS:
            while chunk := await response.content.readany():
                held += chunk
                if len(held) > WHOLE_BODY_BYTES_MAX:
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


def _decode(headers: Headers) -> CIMultiDict[str]:
    return CIMultiDict((name.decode(), value.decode()) for name, value in headers)


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
