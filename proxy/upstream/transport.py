"""The connection pool under the SDK's client: aiohttp, spoken to as an httpx2 transport.

The SDK ships such a transport too; this one differs where a relay must: the request target goes out as it
came (the SDK's decodes `%2F`), a lost connection is not reported as a timeout, no header is added, and each
read gives all that has arrived.
"""

import asyncio
import contextlib
import errno
import io
import re
import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final, cast

import aiohttp
import httpx2
from multidict import CIMultiDict
from yarl import URL

from proxy.upstream.connections import UpstreamConnector, UpstreamHttpRequest, send_again_if_stale
from proxy.wire.websocket import GOING_AWAY, LOST, MESSAGE_BYTES_MAX, NO_CODE, Close

HEADER_BYTES_MAX: Final = 64 * 1024
# A larger body is written piece by piece: as one it would hold up the event loop, and aiohttp warns of it.
WHOLE_BODY_BYTES_MAX: Final = 1024 * 1024
# A WebSocket that is silent for so long is asked for a sign of life, and lost without one after half of that.
HEARTBEAT_SECONDS: Final = 50.0
CLOSE_SECONDS: Final = 2.0
_MESSAGES: Final = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)
_ADDED_BY_AIOHTTP: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
_URL: Final = re.compile(r"https?://\S+")


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Send httpx2 requests over one aiohttp session. Make it where the event loop runs.

    Args:
        tls: The TLS context for https upstreams.
        proxy: URL of a forward proxy, if there is one; the environment is not asked.
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
        self._session = aiohttp.ClientSession(
            connector=connector or UpstreamConnector(tls=tls),
            request_class=UpstreamHttpRequest,
            middlewares=[send_again_if_stale],
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_ADDED_BY_AIOHTTP,
            trust_env=False,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; the response's body is unread.

        The extension `target` (bytes) is the raw request target, `timeout` holds seconds under `connect`.
        With `subprotocols` it is a WebSocket's handshake; where it succeeds the response's extensions hold
        the `socket`.
        """
        if "subprotocols" in request.extensions:
            return await self._open_socket(request)
        content = _content(request)  # before the headers are read: it takes one away
        try:
            response = await self._session.request(
                request.method,
                _url(request),
                headers=_headers(request),
                data=content,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=request.extensions["timeout"]["connect"]),
                proxy=self._proxy,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _translated(error) from error
        body = ArrivingBody(response)
        return _response(response, request, body, body=body)

    async def _open_socket(self, request: httpx2.Request) -> httpx2.Response:
        answers: list[tuple[aiohttp.ClientResponse, bytes]] = []
        connect = request.extensions["timeout"]["connect"]
        try:
            async with aiohttp.ClientSession(  # of this handshake alone: it catches an answer that refuses
                connector=self._session.connector,
                connector_owner=False,
                request_class=UpstreamHttpRequest,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=_ADDED_BY_AIOHTTP,
                trust_env=False,
                max_line_size=HEADER_BYTES_MAX,
                max_field_size=HEADER_BYTES_MAX,
                timeout=aiohttp.ClientTimeout(total=None, connect=connect),
                trace_configs=[_keep_answers(answers)],
            ) as session:
                socket = await session.ws_connect(
                    _url(request, scheme="wss" if request.url.scheme == "https" else "ws"),
                    headers=_headers(request),
                    protocols=request.extensions["subprotocols"],
                    proxy=self._proxy,
                    heartbeat=HEARTBEAT_SECONDS,
                    max_msg_size=MESSAGE_BYTES_MAX,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
                )
        except (aiohttp.ClientError, OSError) as error:
            if not answers or answers[0][0].status == HTTPStatus.SWITCHING_PROTOCOLS:
                raise _translated(error) from error
            answer, held = answers[0]
            body = ArrivingBody(answer, held)
            return _response(answer, request, body, body=body)
        arriving = ArrivingMessages(socket)
        answer, _ = answers[0]
        return _response(answer, request, arriving, body=ArrivingBody(answer), socket=arriving)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()


class ArrivingBody(httpx2.AsyncByteStream):
    """A response body, read as it arrives. Also in the response's extensions, as `body`.

    The iterator serves the SDK's own readers; a relay calls `read`, which saves it three generators an event.
    """

    def __init__(self, response: aiohttp.ClientResponse, whole: bytes | None = None) -> None:
        self._response = response
        self._peeked = whole or b""
        self._ended = whole is not None

    async def peek(self, limit: int) -> bytes:
        """The beginning of the body, up to its end or some way beyond `limit`; it is still to be read."""
        seen = bytearray()
        while len(seen) <= limit and (chunk := await self.read()):
            seen += chunk
        self._peeked = bytes(seen)
        return self._peeked

    async def read(self) -> bytes:
        """All that has arrived, after a wait for the first of it; nothing at the proper end."""
        if self._peeked:
            peeked, self._peeked = self._peeked, b""
            return peeked
        if self._ended:
            return b""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _translated(error) from error

    def fail(self, error: Exception) -> None:
        """Make the read that waits, or the next one, raise this error."""
        self._response.content.set_exception(error)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, close it if not."""
        self._response.release()


class ArrivingMessages(httpx2.AsyncByteStream):
    """A WebSocket to an upstream. Also in the response's extensions, as `socket`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.subprotocol = socket.protocol

    async def receive(self) -> str | bytes | Close:
        """The next message, or how the upstream closed; a connection that was lost is code 1006."""
        message = await self._socket.receive()
        if message.type in _MESSAGES:
            return cast(str | bytes, message.data)
        if message.type is aiohttp.WSMsgType.CLOSE:
            return Close(message.data or NO_CODE, message.extra or "")
        if message.type is aiohttp.WSMsgType.ERROR and isinstance(message.data, aiohttp.WebSocketError):
            return Close(message.data.code)  # what it sent is no message: the words may quote it
        return Close(LOST)

    async def send(self, message: str | bytes) -> None:
        """Send a message, once the upstream has taken enough of those before.

        Raises:
            httpx2.TransportError: it is gone.
        """
        try:
            if isinstance(message, str):
                await self._socket.send_str(message)
            else:
                await self._socket.send_bytes(message)
        except (aiohttp.ClientError, OSError) as error:
            raise _translated(error) from error

    async def close(self, close: Close) -> None:
        """Say how it ends, and wait a moment for the upstream to say so too."""
        with contextlib.suppress(TimeoutError):
            # aiohttp's own bound begins anew with each message that still comes.
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._socket.close(code=close.code, message=close.reason.encode())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while isinstance(message := await self.receive(), bytes):
            yield message

    async def aclose(self) -> None:
        """Close it, if that has not happened."""
        await self.close(Close(GOING_AWAY))


def _keep_answers(answers: list[tuple[aiohttp.ClientResponse, bytes]]) -> aiohttp.TraceConfig:
    """Read what refuses a handshake, which is gone afterwards, and follow no redirect."""
    trace = aiohttp.TraceConfig()

    async def keep(_session: object, _context: object, ended: aiohttp.TraceRequestEndParams) -> None:
        response, held = ended.response, bytearray()
        if response.status != HTTPStatus.SWITCHING_PROTOCOLS:
            while chunk := await response.content.readany():
                held += chunk
                if len(held) > WHOLE_BODY_BYTES_MAX:
                    raise aiohttp.ClientPayloadError
        answers.append((response, bytes(held)))

    async def redirected(
        _session: object, _context: object, params: aiohttp.TraceRequestRedirectParams
    ) -> None:
        params.response.close()
        answers.append((params.response, b""))
        raise aiohttp.ClientPayloadError

    trace.on_request_end.append(keep)
    trace.on_request_redirect.append(redirected)
    return trace


def _url(request: httpx2.Request, scheme: str | None = None) -> URL:
    url, target = request.url, cast(bytes, request.extensions["target"])
    return URL(f"{scheme or url.scheme}://{url.netloc.decode()}{target.decode()}", encoded=True)


def _headers(request: httpx2.Request) -> CIMultiDict[str]:
    return CIMultiDict((name.decode(), value.decode()) for name, value in request.headers.raw)


def _response(
    answer: aiohttp.ClientResponse,
    request: httpx2.Request,
    stream: httpx2.AsyncByteStream,
    **extensions: object,
) -> httpx2.Response:
    return httpx2.Response(
        answer.status, headers=answer.raw_headers, stream=stream, request=request, extensions=extensions
    )


def _content(request: httpx2.Request) -> bytes | io.BytesIO | httpx2.AsyncByteStream | None:
    try:
        content = request.content
    except httpx2.RequestNotRead:
        request.headers.pop("transfer-encoding", None)  # aiohttp frames the body itself
        return cast(httpx2.AsyncByteStream, request.stream)
    return io.BytesIO(content) if len(content) > WHOLE_BODY_BYTES_MAX else content or None


def _translated(error: Exception) -> httpx2.TransportError:
    """The SDK's side of an aiohttp error, by its cause."""
    kind = next((to for of, to in _ERRORS if isinstance(error, of)), httpx2.ReadError)
    if getattr(error, "errno", None) in _NO_DESCRIPTORS:
        kind = httpx2.PoolTimeout  # our own limit, not the upstream's fault
    return kind(_words(error))


def _words(error: Exception) -> str:
    """What an error says, but for the URLs in it: a query may hold a token, and a proxy's URL a password."""
    return _URL.sub("(URL)", str(error))


# The first that fits counts: subclasses before their bases.
_ERRORS: Final[list[tuple[type[Exception], type[httpx2.TransportError]]]] = [
    (aiohttp.ConnectionTimeoutError, httpx2.ConnectTimeout),
    (aiohttp.ServerTimeoutError, httpx2.ReadTimeout),
    (aiohttp.ServerDisconnectedError, httpx2.RemoteProtocolError),
    (aiohttp.ClientHttpProxyError, httpx2.ProxyError),
    (aiohttp.ClientConnectorError, httpx2.ConnectError),
    (aiohttp.ClientResponseError, httpx2.RemoteProtocolError),
]
