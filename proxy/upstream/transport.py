"""The connection pool under the SDK's client: aiohttp, spoken to as an httpx2 transport.

The SDK ships such a transport too; this one differs where a relay must: the request target goes out as it
came (the SDK's decodes `%2F`), a lost connection is not reported as a timeout, no header is added, and each
read gives all that has arrived.
"""

import errno
import io
import re
import ssl
from collections.abc import AsyncIterator
from typing import Final, cast

import aiohttp
import httpx2
from multidict import CIMultiDict
from yarl import URL

# Below the 5 s after which many servers (uvicorn, Hypercorn, Node) close an idle connection: a request sent
# on one that is just closing would be lost, and a POST cannot be sent again.
KEEP_ALIVE_SECONDS: Final = 4.0
HEADER_BYTES_MAX: Final = 64 * 1024
# A larger body is written piece by piece: as one it would hold up the event loop, and aiohttp warns of it.
WHOLE_BODY_BYTES_MAX: Final = 1024 * 1024
_ADDED_BY_AIOHTTP: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
_URL: Final = re.compile(r"https?://\S+")


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Send httpx2 requests over one aiohttp session. Make it where the event loop runs.

    Args:
        tls: The TLS context for https upstreams.
        proxy: URL of a forward proxy, if there is one; the environment is not asked.
    """

    def __init__(self, *, tls: ssl.SSLContext | bool, proxy: str | None = None) -> None:
        self._proxy = proxy
        self._session = aiohttp.ClientSession(
            # No limit here, where callers would wait unseen: the client counts and refuses.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=tls),
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
        """
        url = request.url
        target: bytes = request.extensions["target"]
        content = _content(request)  # before the headers are read: it takes one away
        try:
            response = await self._session.request(
                request.method,
                URL(f"{url.scheme}://{url.netloc.decode()}{target.decode()}", encoded=True),
                headers=CIMultiDict((name.decode(), value.decode()) for name, value in request.headers.raw),
                data=content,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=request.extensions["timeout"]["connect"]),
                proxy=self._proxy,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _translated(error) from error
        body = ArrivingBody(response)
        return httpx2.Response(
            response.status,
            headers=response.raw_headers,
            stream=body,
            request=request,
            extensions={"body": body},
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()


class ArrivingBody(httpx2.AsyncByteStream):
    """A response body, read as it arrives. Also in the response's extensions, as `body`.

    The iterator serves the SDK's own readers; a relay calls `read`, which saves it three generators an event.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._peeked = b""

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
