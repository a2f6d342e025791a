"""Send requests to one upstream.

`UpstreamTransport` is the only place that decides which library sends a request: HTTP goes out on our own
connections (`proxy.upstream.connections`), and WebSockets on those of `proxy.upstream.websocket`.

The relay calls `send`; the SDK's own methods use the same connections, through the interface of an httpx2
transport. The SDK's transport on aiohttp decodes `%2F`, reports a lost connection as a timeout, and adds
headers; this one sends what it is given.
"""

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from typing import Final, cast

import httpx2

from proxy.upstream.connections import GuardedConnection, UpstreamConnector
from proxy.upstream.http1 import ArrivingResponse
from proxy.upstream.redacted import RedactedBody, mask, without_coding
from proxy.upstream.websocket import ArrivingMessages, SocketOpener
from proxy.wire.headers import Headers
from proxy.wire.redaction import Redactor
from proxy.wire.statuses import BAD_REQUEST, SWITCHING_PROTOCOLS

_NO_SECRETS: Final = Redactor()
_FRAMING: Final = frozenset({b"host", b"content-length", b"transfer-encoding"})


class UpstreamTransport(httpx2.AsyncBaseTransport):
    """Sends requests to one upstream. Construct it where the event loop runs.

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
        self._connector = connector or UpstreamConnector(tls=tls, proxy=proxy)
        self._sockets = SocketOpener(tls=tls, proxy=proxy)

    async def send(
        self,
        method: str,
        origin: str,
        target: bytes,
        headers: Headers,
        body: bytes | AsyncIterable[bytes],
        *,
        connect: float | None,
        unanswered: Callable[[], None] | None = None,
    ) -> "UpstreamResponse":
        """Send one request; the body of the response is unread.

        Args:
            method: The HTTP method.
            origin: Scheme, host and port of the upstream.
            target: The raw request target.
            headers: All headers except Host and the framing of the body, which are added. A Content-Length
                is that of a streamed body.
            body: The whole body, or a stream.
            connect: The timeout for the connection, in seconds.
            unanswered: Called if the upstream may act on the request, and no response arrives, whatever ended
                the wait for it.

        Raises:
            httpx2.TransportError: There is no response.
        """
        connection, response = await self._connector.send(
            method, origin, target, headers, body, connect=connect, unanswered=unanswered
        )
        return UpstreamResponse(
            response.status, response.headers, response.version, response=response, connection=connection
        )

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

        The body of a rejection is unread.

        Raises:
            httpx2.TransportError: There is no response.
        """
        socket = await self._sockets.open(origin, target, headers, subprotocols, connect=connect)
        response = socket.response
        if response.status == SWITCHING_PROTOCOLS:
            return UpstreamResponse(response.status, response.headers, response.version, socket=socket)
        return UpstreamResponse(
            response.status, response.headers, response.version, response=response, connection=socket
        )

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
        self._connector.close()
        await self._sockets.aclose()


class UpstreamResponse(httpx2.AsyncByteStream):
    """The response of an upstream, whose body is read as it arrives.

    It is also the stream of an httpx2 response, for the SDK.

    Args:
        status, headers, http_version: Those of the response.
        response: The body, which arrives.
        connection: Where it arrives.
        socket: The WebSocket that a handshake has opened.
    """

    def __init__(
        self,
        status: int,
        headers: Headers,
        http_version: str,
        *,
        response: ArrivingResponse | None = None,
        connection: GuardedConnection | ArrivingMessages | None = None,
        socket: ArrivingMessages | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.http_version = http_version
        """Such as `1.1`."""
        self.socket = socket
        self._redactor = _NO_SECRETS
        self._response = response
        self._connection = connection
        self._peeked = b""
        self._masked: RedactedBody | None = None
        self._translate: Callable[[httpx2.TransportError], Exception] | None = None
        self._closed: Callable[[], None] | None = None

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
        self._translate, self._closed, self._redactor = translate, closed, redactor
        headers = self.headers
        self.headers = redactor.redact_values(headers)
        if redactor and self.status >= BAD_REQUEST:
            self._masked = RedactedBody(self._receive, redactor, headers)
            self.headers = without_coding(self.headers)

    def redact(self, data: bytes) -> bytes:
        """Mask the secrets that were sent to the upstream in a short part of this response."""
        return self._redactor.redact(data)

    async def mask(self, data: bytes) -> bytes:
        """Mask them in a part of any length, and let other tasks run meanwhile if it is long."""
        return await mask(self._redactor, data)

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
        if self._response is None:
            return b""
        try:
            return await self._response.read()
        except httpx2.TransportError as failure:
            if self._translate is None:
                raise
            raise self._translate(failure) from failure

    def has_arrived(self) -> bool:
        """Whether the whole body has arrived, so that no `read` waits any more."""
        return self._response is None or self._response.ended

    def fail(self, error: Exception) -> None:
        """Make the read that waits, or the next one, raise this error."""
        if self._response is not None:
            self._response.fail(error)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def aclose(self) -> None:
        """Close the WebSocket, or return the connection to the pool if the body was read to its end."""
        if self._closed is not None:
            self._closed()
        if self.socket is not None:
            await self.socket.aclose()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.release()
