"""HTTP/1.1 between a caller's connection and an ASGI application, parsed by llhttp (RFC 9110, RFC 9112).

`Connection` is the asyncio protocol of one connection. It builds a `Cycle` for each request, which has the
`receive` and `send` of ASGI. Requests of one connection are answered one at a time (RFC 9112 9.3.2), while
pipelined ones wait.

Every wait has a timeout, and every input a bound. The timeouts need no timers of their own: the server calls
`Connection.tick` about once a second.
"""

import asyncio
import contextlib
import re
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Final, Literal, Protocol, Required, TypedDict, cast
from urllib.parse import unquote

import httptools

from proxy.wire.disconnect import EXTENSION, DisconnectExtension, OnDisconnect
from proxy.wire.headers import Headers

BODY_BUFFER_BYTES: Final = 64 * 1024
"""Unread bytes of a body that may wait here; beyond it the connection is not read."""
PIPELINE_MAX: Final = 16
"""Maximum number of pipelined requests that wait. A connection with more is closed."""
LINGER_SECONDS: Final = 2.0
"""How long the rest of an unread request is thrown away, so that its sender can read the response."""
LINGER_BYTES: Final = 1 << 20
CHUNK_OVERHEAD_BYTES: Final = 16 * 1024
"""Bytes of chunk sizes, extensions and trailers that any body may have."""
CHUNK_OVERHEAD_RATIO: Final = 16
"""Further bytes of framing for each byte of the body."""
REQUEST_LINE_SPARE: Final = 64
"""Upper bound for the method, the version and the spaces of a request line."""
PROBE_SECONDS: Final = 0.05
"""How long the kernel of a caller that has closed its connection takes to answer a probe with a reset."""

FIRST_REQUEST_SECONDS: Final = 1.0
"""A connection that was opened just before a drain may take this long to send its request."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_METHOD: Final = re.compile(rb"\s*[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} ")
_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_BODILESS: Final = frozenset({204, 304})
_TCP_CLOSE: Final = 7
_TCP_CLOSE_WAIT: Final = 8

DisconnectReason = str
GONE: Final = "client_gone"
SLOW_READER: Final = "slow_reader"
SLOW_BODY: Final = "slow_body"
MALFORMED_BODY: Final = "malformed_body"


class Scope(TypedDict):
    """The scope of a request, or of the handshake of a WebSocket (ASGI 3.0).

    `path` is percent-decoded; `raw_path` and `query_string` are the caller's bytes, and header names are in
    lower case. `client` and `server` are address and port, or None on a Unix socket.
    """

    type: Literal["http", "websocket"]
    asgi: dict[str, str]
    http_version: str
    method: str
    scheme: str
    path: str
    raw_path: bytes
    query_string: bytes
    root_path: str
    headers: Headers
    client: tuple[str, int] | None
    server: tuple[str, int] | None
    state: dict[str, object]
    extensions: dict[str, Mapping[str, object]]


class ReceiveEvent(TypedDict, total=False):
    """`http.request` with the next bytes of the body, or `http.disconnect` with the reason."""

    type: Required[Literal["http.request", "http.disconnect"]]
    body: bytes
    more_body: bool
    reason: DisconnectReason


class SendEvent(TypedDict, total=False):
    """`http.response.start` with status and headers, or `http.response.body` with bytes of the body."""

    type: Required[str]
    status: int
    headers: Headers
    body: bytes
    more_body: bool


Receive = Callable[[], Awaitable[ReceiveEvent]]
Send = Callable[[SendEvent], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Bounds of one connection: sizes in bytes, times in seconds.

    Args:
        target_bytes: The longest request target; a longer one is answered 414.
        head_bytes: The request line and all header lines; more is answered 431.
        headers: The number of header lines; more are answered 431.
        idle_seconds: The time between two requests.
        head_seconds: The time from the first byte of a request, or from the opening of the connection, to the
            end of the head; more is answered 408.
        window_seconds: The time within which a body and a response must make progress.
        body_bytes: How much of a request body must arrive in each window while it is read; less is 408.
        response_bytes: How much of a waiting response the caller must take in each window; less aborts it.
        requests: The number of requests on one connection.
    """

    target_bytes: int = 16 * 1024
    head_bytes: int = 64 * 1024
    headers: int = 200
    idle_seconds: float = 75.0
    head_seconds: float = 20.0
    window_seconds: float = 60.0
    body_bytes: int = 1024
    response_bytes: int = 1
    requests: int = 100_000


class RequestRejected(Exception):
    """A request that the server itself rejects. The connection is closed after the response.

    Args:
        status: The status of the response.
        reason: The fault, for the caller and the log, without bytes of the request.
        headers: Further headers of the response.
    """

    def __init__(self, status: HTTPStatus, reason: str, headers: Headers | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or []


class ConnectionOwner(Protocol):
    """The server, as its connections use it."""

    app: App
    limits: ConnectionLimits
    state: dict[str, object]
    root_path: str

    @property
    def draining(self) -> bool:
        """Whether each connection is closed after its current response."""
        ...

    def opened(self, connection: "Connection") -> None:
        """Count a connection.

        Raises:
            RequestRejected: there are too many.
        """
        ...

    def closed(self, connection: "Connection") -> None:
        """Remove a connection from the count."""
        ...

    def run(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a coroutine in a task that the server owns."""
        ...

    def common_headers(self) -> bytes:
        """Return the header lines of every response, such as Date."""
        ...

    def reject(self, rejection: RequestRejected, peer: str | None) -> tuple[Headers, bytes]:
        """Log a rejection; return the headers and the body of its response."""
        ...

    def failed(self, error: BaseException) -> None:
        """Log an exception that escaped from the application."""
        ...

    def upgrade(self, connection: "Connection", scope: Scope) -> Callable[[bytes], None]:
        """Serve a WebSocket on a connection; return what takes the caller's further bytes.

        Raises:
            RequestRejected: the handshake is not one of RFC 6455.
        """
        ...


class _Framing(Enum):
    """How a caller can tell where a response body ends (RFC 9112 6.3)."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()


class Cycle:
    """One request and its response: ASGI's `receive` and `send`."""

    __slots__ = (
        "_body", "_body_bytes", "_close", "_complete", "_connection", "_continue", "_delivered", "_flush",
        "_framing", "_head", "_left", "_remaining", "_waiter", "complete", "disconnected", "is_http_1_0",
        "keep_alive", "method", "scope", "started",
    )  # fmt: skip

    def __init__(self, connection: "Connection", scope: Scope, *, keep_alive: bool, expects: bool) -> None:
        self.scope = scope
        self.method = scope["method"]
        self.is_http_1_0 = scope["http_version"] == "1.0"
        self.keep_alive = keep_alive
        self.started = self.complete = False
        """Whether the response has begun, and whether all of it has been handed to the transport."""
        self.disconnected: DisconnectReason | None = None
        self._left: OnDisconnect | None = None
        extension = DisconnectExtension(subscribe=self.when_disconnected, has_body=self.has_body)
        scope["extensions"][EXTENSION] = extension
        self._connection = connection
        self._continue = expects
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._complete = False
        self._delivered = False
        self._waiter: asyncio.Future[None] | None = None
        self._head = b""
        self._flush: asyncio.TimerHandle | asyncio.Handle | None = None
        self._close = False
        self._framing = _Framing.NONE
        self._remaining = 0

    # --- the request

    @property
    def body_complete(self) -> bool:
        """Whether the whole request body has arrived."""
        return self._complete

    @property
    def wants_body(self) -> bool:
        """Whether the application waits for bytes that have not arrived."""
        return self._waiter is not None and not self._complete

    @property
    def unread(self) -> int:
        """Bytes of the body that have arrived and wait for the application."""
        return self._body_bytes

    def feed(self, data: bytes) -> None:
        """Add bytes of the body."""
        self._continue = False
        self._body.append(data)
        self._body_bytes += len(data)
        self._wake()

    def feed_end(self) -> None:
        """Mark the body as complete."""
        self._complete = True
        self._wake()

    def disconnect(self, reason: DisconnectReason) -> None:
        """Report to the application that the caller no longer reads its response."""
        if self.disconnected is None:
            self.disconnected = reason
            self._body.clear()
            self._body_bytes = 0
            self._wake()
            if self._left is not None:
                self._left(reason)

    def when_disconnected(self, left: OnDisconnect) -> None:
        """Call back when nobody reads the response any more; see `proxy.wire.disconnect`."""
        self._left = left
        if self.disconnected is not None:
            left(self.disconnected)

    async def receive(self) -> ReceiveEvent:
        """Return the bytes of the body that have arrived, its end, or the disconnect.

        The first call makes the server send `100 Continue` if the caller expects it (RFC 9110 10.1.1).
        """
        while self.disconnected is None and not self.complete and not self.has_body():
            if self._continue and not self._complete and not self._head:
                self._continue = False
                self._connection.write(_CONTINUE)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.disconnected is not None or self.complete:
            return {"type": "http.disconnect", "reason": self.disconnected or "complete"}
        data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._body_bytes = 0
        self._delivered = self._complete
        self._connection.balance_reading()
        return {"type": "http.request", "body": data, "more_body": not self._complete}

    def has_body(self) -> bool:
        """Whether bytes of the body, or its end, wait for the application."""
        return bool(self._body) or (self._complete and not self._delivered)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- the response

    async def send(self, message: SendEvent) -> None:
        """Write the head or bytes of the body, and wait while the write buffer is full.

        The body is framed by its Content-Length, else in chunks or, in HTTP/1.0, by the end of the connection
        (RFC 9112 6.3).

        Raises:
            ConnectionResetError: the caller has disconnected.
            RuntimeError: the message is out of order, or the body differs from its Content-Length.
        """
        if self.disconnected is not None:
            raise ConnectionResetError(self.disconnected)
        kind = message["type"]
        if kind == "http.response.body" and self._head and not self.complete:
            self._send_body(message.get("body", b""), last=not message.get("more_body", False))
            await self._connection.drained()
        elif kind == "http.response.start" and not self.started and not self._head:
            self._head = self._begin(message["status"], message.get("headers", ()))
            # The body mostly follows in the same step of the loop, and leaves in one write with the head.
            self._flush = asyncio.get_running_loop().call_soon(self.flush_head)
        else:
            raise RuntimeError(f"{kind} is out of order")

    def flush_head(self) -> None:
        """Write the head if it has not been written yet."""
        self._flush = None
        if not self.started and self.disconnected is None:
            self.started = True
            self._connection.write(self._head)

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        connection = self._connection
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        length: int | None = None
        for header, value in headers:
            name = header.lower()
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                self._close = self._close or b"close" in value.lower()
                continue
            elif name == b"transfer-encoding":
                continue
            if b"\n" in value or b"\r" in value or b"\0" in value:
                raise RuntimeError("a response header holds a line break")
            lines += (name, b": ", value, b"\r\n")
        lines.append(connection.owner.common_headers())
        if self.method == "HEAD" or status in _BODILESS or status < HTTPStatus.OK:
            self._framing = _Framing.NONE
        elif length is not None:
            self._framing, self._remaining = _Framing.LENGTH, length
        elif self.is_http_1_0:
            self._framing, self._close = _Framing.CLOSE, True
        else:
            self._framing = _Framing.CHUNKED
            lines.append(b"transfer-encoding: chunked\r\n")
        # A caller that got no 100 may send its body or not (RFC 9110 10.1.1).
        withheld = self._continue and not self._complete
        self._close = self._close or withheld or not self.keep_alive or connection.is_last
        if self._close:
            lines.append(b"connection: close\r\n")
        elif self.is_http_1_0:
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _send_body(self, data: bytes, *, last: bool) -> None:
        if self._framing is _Framing.LENGTH:
            self._remaining -= len(data)
            if self._remaining < 0 or (last and self._remaining):
                raise RuntimeError("the response body does not keep to its Content-Length")
        parts: list[bytes] = []
        if not self.started:
            self.started = True
            parts.append(self._head)
            if self._flush is not None:
                self._flush.cancel()
                self._flush = None
        if self._framing is _Framing.CHUNKED:
            if data:
                parts += (b"%x\r\n" % len(data), data, b"\r\n")
            if last:
                parts.append(b"0\r\n\r\n")
        elif self._framing is not _Framing.NONE and data:
            parts.append(data)
        if parts:
            self._connection.write(parts[0] if len(parts) == 1 else b"".join(parts))
        if last:
            self.complete = True
            self._wake()
            self._connection.response_complete(self, close=self._close)

    @property
    def has_head(self) -> bool:
        """Whether the application has sent the head of the response."""
        return bool(self._head)

    @property
    def is_chunked(self) -> bool:
        """Whether the response has begun and is framed in chunks."""
        return self.started and self._framing is _Framing.CHUNKED

    @property
    def ends_by_close(self) -> bool:
        """Whether only the end of the connection marks the end of the response, as in HTTP/1.0."""
        return self._framing is _Framing.CLOSE

    async def run(self) -> None:
        """Run the application; if it leaves the response incomplete, end it so that the caller sees that."""
        try:
            await self._connection.owner.app(self.scope, self.receive, self.send)
        except Exception as error:
            if self.disconnected is None:
                self._connection.owner.failed(error)
        finally:
            self._left = None
            self.scope["extensions"].clear()  # a reference to this object
            if not self.complete and self.disconnected is None:
                self._connection.response_broken(self)


class Connection(asyncio.Protocol):
    """The asyncio protocol of one connection, and the callbacks of its llhttp parser."""

    def __init__(self, owner: ConnectionOwner, *, secure: bool) -> None:
        self.owner = owner
        self.limits = owner.limits
        self.peer: str | None = None
        self._scheme = "https" if secure else "http"
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpRequestParser(self)
        self._client: tuple[str, int] | None = None
        self._server: tuple[str, int] | None = None
        self._socket: socket.socket | None = None
        # The request whose head or body is arriving.
        self._target: list[bytes] = []
        self._target_bytes = 0
        self._headers: Headers = []
        self._head_bytes = self._head_size = 0
        self._head_since = self._loop.time()
        self._reading_head = True
        self._resuming = self._skips_body = False
        self._websocket: Scope | None = None
        self._incoming: Cycle | None = None
        self._overhead = 0
        self._body_received = 0
        # The request that is being answered, and those behind it.
        self._cycle: Cycle | None = None
        self._pipeline: deque[Cycle] = deque()
        self._rejection: RequestRejected | None = None
        self._requests = 0
        # The transport.
        self._upgraded: Callable[[bytes], None] | None = None
        self._on_lost: Callable[[], None] | None = None
        self._closing = self._lost = self._eof = self._ends_idle = False
        self._reason: DisconnectReason = ""
        self._lingered = -1
        self._linger_until = 0.0
        self._reading_paused = False
        self._writable: asyncio.Future[None] | None = None
        self._writing_paused = False
        # Progress since the beginning of the window.
        self._body_window = (0.0, 0)
        self._write_window = (0.0, 0)
        self._written = 0

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection with the server; reject it if there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        self._socket = transport.get_extra_info("socket")
        self._client = _address(transport.get_extra_info("peername"))
        self._server = _address(transport.get_extra_info("sockname"))
        self.peer = None if self._client is None else self._client[0]
        try:
            self.owner.opened(self)
        except RequestRejected as rejection:
            self._reject(rejection)

    def data_received(self, data: bytes) -> None:
        """Parse bytes, hand them to the WebSocket, or drop them while the connection is being closed."""
        if self._upgraded is not None:
            self._upgraded(data)
        elif self._lingered >= 0:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self._transport.abort()
        elif not self._closing and self._rejection is None:
            self._parse(data)

    def eof_received(self) -> bool:
        """Return whether to keep the connection open for writing.

        The caller sends no more bytes: it has closed the connection, or only its sending side.
        """
        self._eof = True
        if self._upgraded is not None or self._lingered >= 0 or self._cycle is None or self._closing:
            return False
        if self._incoming is not None and not self._incoming.body_complete:
            return False  # Half a request: nobody waits for a response to it.
        self._probe()
        return self._transport.can_write_eof()  # TLS connections have no half-closed state.

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the disconnect to the application, and release the connection."""
        del exc
        if self._lost:
            return
        self._lost = True
        self.owner.closed(self)
        self._disconnect(GONE)
        self.resume_writing()
        if self._on_lost is not None:
            self._on_lost()
            self._on_lost = None
        # These refer to the connection. With them, only the garbage collector could free it.
        self._cycle = self._incoming = self._upgraded = None
        del self._parser

    def pause_writing(self) -> None:
        """Note that the write buffer is full; `drained` waits from now on."""
        self._writing_paused = True
        self._write_window = (self._loop.time(), self._taken())

    def resume_writing(self) -> None:
        """Let `drained` return: the caller has read enough."""
        self._writing_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- httptools

    def on_message_begin(self) -> None:
        """Begin to collect the head of a request."""
        if self._resuming:
            return
        self._target, self._target_bytes, self._headers = [], 0, []
        self._reading_head = True
        self._overhead = self._body_received = 0

    def on_url(self, url: bytes) -> None:
        """Add a piece of the request target."""
        self._target.append(url)
        self._target_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header line; drop a trailer (RFC 9112 7.1.2).

        Raises:
            RequestRejected: 431, too many header lines.
        """
        if self._reading_head and not self._resuming:
            self._headers.append((name.lower(), value))
            if len(self._headers) > self.limits.headers:
                raise RequestRejected(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header lines")

    def on_headers_complete(self) -> None:
        """Check what llhttp does not check, and start or queue the request.

        Raises:
            RequestRejected: the head is too large or ambiguous, or too many requests are pipelined.
        """
        if self._resuming:
            return
        self._reading_head = False
        self._requests += 1
        scope = self._scope()
        head = len(scope["raw_path"]) + sum(len(name) + len(value) + 4 for name, value in self._headers)
        self._head_size = head + REQUEST_LINE_SPARE
        if head > self.limits.head_bytes:
            raise RequestRejected(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request head is too large")
        expects = self._check_headers(scope)
        if scope["type"] == "websocket":
            if self._cycle is not None:
                raise RequestRejected(HTTPStatus.BAD_REQUEST, "a WebSocket handshake must not be pipelined")
            return
        self._skips_body = self._parser.should_upgrade() and any(
            name in _FRAMING for name, _ in self._headers
        )
        cycle = Cycle(self, scope, keep_alive=self._parser.should_keep_alive(), expects=expects)
        self._incoming = cycle
        if self._cycle is None:
            self._start(cycle)
        elif len(self._pipeline) < PIPELINE_MAX:
            self._pipeline.append(cycle)
        else:
            self._incoming = None
            raise RequestRejected(HTTPStatus.BAD_REQUEST, "too many pipelined requests")

    def on_body(self, body: bytes) -> None:
        """Pass bytes of the body to the request."""
        self._body_received += len(body)
        if self._incoming is not None:
            self._incoming.feed(body)

    def on_message_complete(self) -> None:
        """Mark the body of the request as complete."""
        if self._skips_body:
            self._skips_body = False  # httptools skips the body of every request with an upgrade.
        elif self._incoming is not None:
            self._incoming.feed_end()
            self._incoming = None

    # --- requests

    def _parse(self, data: bytes) -> None:
        if self._reading_head:
            if not self._head_bytes:
                self._head_since = self._loop.time()
            self._head_bytes += len(data)
        else:
            self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._reject(_rejection_of(error, data))
            return
        if self._reading_head:
            if self._head_bytes > self.limits.head_bytes:
                self._reject(
                    RequestRejected(
                        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request head is too large"
                    )
                )
                return
            if self._target_bytes > self.limits.target_bytes:
                self._reject(
                    RequestRejected(HTTPStatus.REQUEST_URI_TOO_LONG, "the request target is too long")
                )
                return
        else:
            self._overhead += max(0, self._head_bytes - self._head_size)  # Bytes that arrived with the head.
            self._head_bytes = 0
            spare = CHUNK_OVERHEAD_BYTES + CHUNK_OVERHEAD_RATIO * self._body_received
            if self._incoming is not None and self._overhead - self._body_received > spare:
                self._reject(RequestRejected(HTTPStatus.BAD_REQUEST, "the body has too much framing"))
                return
        self.balance_reading()

    def _scope(self) -> Scope:
        target = self._target[0] if len(self._target) == 1 else b"".join(self._target)
        if len(target) > self.limits.target_bytes:
            raise RequestRejected(HTTPStatus.REQUEST_URI_TOO_LONG, "the request target is too long")
        if not target.isascii():
            raise RequestRejected(HTTPStatus.BAD_REQUEST, "the request target holds bytes beyond ASCII")
        path, _, query = target.partition(b"?")
        text = path.decode("ascii")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self._parser.get_http_version(),
            "method": self._parser.get_method().decode("ascii"),
            "scheme": self._scheme,
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "root_path": self.owner.root_path,
            "headers": self._headers,
            "client": self._client,
            "server": self._server,
            "state": self.owner.state.copy(),
            "extensions": {},
        }

    def _check_headers(self, scope: Scope) -> bool:
        """Check the headers that frame and route the request; return whether the caller expects a 100.

        Two servers must not read one request in two ways (RFC 9112 3.2, 6.1, 11.2).

        Raises:
            RequestRejected: 400, 417, 501 or 505.
        """
        version = scope["http_version"]
        if version not in {"1.0", "1.1"}:
            raise RequestRejected(
                HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are served"
            )
        hosts = 0
        expects = False
        upgrade = b""
        for name, value in self._headers:
            if name == b"host":
                hosts += 1
                if not _HOST.fullmatch(value):
                    raise RequestRejected(HTTPStatus.BAD_REQUEST, "the Host header is malformed")
            elif name == b"transfer-encoding":
                if version == "1.0":
                    raise RequestRejected(HTTPStatus.BAD_REQUEST, "Transfer-Encoding in HTTP/1.0")
                if value.strip().lower() != b"chunked":
                    raise RequestRejected(
                        HTTPStatus.NOT_IMPLEMENTED, "only the transfer coding chunked is known"
                    )
            elif name == b"expect":
                if value.strip().lower() != b"100-continue":
                    raise RequestRejected(HTTPStatus.EXPECTATION_FAILED, "only 100-continue can be expected")
                expects = version == "1.1"
            elif name == b"upgrade":
                upgrade = value.strip().lower()
        if hosts > 1 or (not hosts and version == "1.1"):
            raise RequestRejected(HTTPStatus.BAD_REQUEST, "exactly one Host header is required")
        if upgrade == b"websocket" and self._parser.should_upgrade() and scope["method"] == "GET":
            scope["type"] = "websocket"
            self._websocket = scope
        return expects

    def _start(self, cycle: Cycle) -> None:
        self._cycle = cycle
        now = self._loop.time()
        self._body_window = (now, 0)
        self.owner.run(cycle.run())

    def _after_upgrade(self, rest: bytes) -> None:
        """Continue after a request with an Upgrade header; `rest` are the bytes after its head."""
        websocket, self._websocket = self._websocket, None
        if websocket is None:
            self._ignore_upgrade()
            if rest:
                self._parse(rest)
            return
        try:
            self._upgraded = self.owner.upgrade(self, websocket)
        except RequestRejected as rejection:
            self._reject(rejection)
            return
        if rest:
            self._upgraded(rest)

    def _ignore_upgrade(self) -> None:
        """Continue in HTTP/1.1, as RFC 9110 7.8 allows, if a request offers h2c or another protocol.

        llhttp stops after the head of such a request, so a new parser that knows the framing continues.
        """
        self._parser = httptools.HttpRequestParser(self)
        if self._incoming is None:
            self._reading_head, self._head_bytes = True, 0
            return
        framing = [pair for pair in self._headers if pair[0] in _FRAMING]
        self._resuming = True
        try:
            self._parser.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\n" + _header_lines(framing) + b"\r\n")
        finally:
            self._resuming = False

    # --- responses

    @property
    def is_last(self) -> bool:
        """Whether the connection is closed after the response that begins now."""
        return self.owner.draining or self._eof or self._requests >= self.limits.requests

    def write(self, data: bytes) -> None:
        """Write bytes to the transport, unless the connection is lost."""
        if not self._lost:
            self._written += len(data)
            self._transport.write(data)

    async def drained(self) -> None:
        """Wait while the write buffer is full.

        Raises:
            ConnectionResetError: the caller has disconnected.
        """
        if self._writing_paused:
            if self._writable is None:
                self._writable = self._loop.create_future()
            await self._writable
        if self._lost:
            raise ConnectionResetError(self._reason)

    def response_complete(self, cycle: Cycle, *, close: bool) -> None:
        """Start the next request after a complete response, or close the connection."""
        if cycle is not self._cycle:
            return
        self._cycle = None
        if close or not cycle.body_complete:
            self._close_politely(linger=not cycle.body_complete)
        elif self._pipeline:
            self._start(self._pipeline.popleft())
            self.balance_reading()
        elif self._rejection is not None:
            self._reject(self._rejection)
        elif self._eof or self.owner.draining:
            self._close_politely(linger=False)
        else:
            self._head_since = self._loop.time()
            self.balance_reading()

    def response_broken(self, cycle: Cycle) -> None:
        """End an incomplete response: with a 500 if nothing was sent, otherwise by closing the connection."""
        if cycle.has_head:
            cycle.flush_head()
        if not cycle.started:
            cycle.disconnected = GONE
            self._cycle = None
            self._reject(
                RequestRejected(HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed to answer the request")
            )
        elif cycle.ends_by_close:
            self._reset()  # A normal close would look like the end of the body.
        else:
            self._close_politely(linger=False)  # The last chunk, or the rest of the length, is missing.

    def _reset(self) -> None:
        """Abort the connection with a TCP reset, which does not look like the end of a response."""
        if self._socket is not None:
            with contextlib.suppress(OSError), _duplicate(self._socket) as duplicate:
                duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def balance_reading(self) -> None:
        """Pause or resume reading, so that unread bytes stay below `BODY_BUFFER_BYTES`."""
        cycle = self._cycle
        full = bool(self._pipeline) or (cycle is not None and cycle.unread > BODY_BUFFER_BYTES)
        if full != self._reading_paused and not self._closing and not self._lost:
            self._reading_paused = full
            if full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def begin_drain(self) -> None:
        """Close the connection if it is idle; a new one may still send its first request."""
        self._ends_idle = True
        if self._requests and self._cycle is None and self._upgraded is None and not self._head_bytes:
            self._close_politely(linger=False)

    def close(self) -> None:
        """Close the connection once the write buffer is empty."""
        self._close_politely(linger=False)

    def abort(self, reason: DisconnectReason = GONE) -> None:
        """Close the connection at once, without its buffered bytes; the application gets the reason."""
        self._disconnect(reason)
        self._closing = True
        self._transport.abort()

    def pause_reading(self) -> None:
        """Stop reading, for a WebSocket whose messages wait."""
        if not self._lost:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Continue reading."""
        if not self._lost and not self._closing:
            self._transport.resume_reading()

    def write_head(self, status: int, headers: Headers) -> None:
        """Write the head of a response to a WebSocket handshake or to a rejected request."""
        self.write(_STATUS_LINES[status] + _header_lines(headers) + self.owner.common_headers() + b"\r\n")

    def when_lost(self, act: Callable[[], None]) -> None:
        """Set a function to call when the connection is lost."""
        self._on_lost = act

    def _reject(self, rejection: RequestRejected) -> None:
        """Reject a request, after the responses to earlier ones, and close the connection."""
        cycle = self._cycle
        if cycle is not None:
            if self._incoming is not cycle:
                # The rejection belongs to a later request: answer the earlier ones first.
                self._rejection = rejection
                if self._incoming is not None:
                    self._pipeline.remove(self._incoming)
                    self._incoming = None
                return
            cycle.disconnect(MALFORMED_BODY if rejection.status != HTTPStatus.REQUEST_TIMEOUT else SLOW_BODY)
            self._cycle = None
            if cycle.started:
                self._transport.abort()
                return
        self._rejection = rejection
        headers, body = self.owner.reject(rejection, self.peer)
        length = (b"content-length", b"%d" % len(body))
        self.write_head(rejection.status, [*headers, length, (b"connection", b"close")])
        self.write(body)
        self._close_politely(linger=True)

    def _close_politely(self, *, linger: bool) -> None:
        """Close once the write buffer is empty (RFC 9112 9.6).

        Args:
            linger: Drop what the caller still sends for a while: closing with unread bytes sends a reset,
                which can destroy the response.
        """
        if self._closing or self._lost:
            return
        self._closing = True
        if not linger or self._eof or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._lingered = 0
        self._linger_until = self._loop.time() + LINGER_SECONDS
        self._transport.write_eof()
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    def _disconnect(self, reason: DisconnectReason) -> None:
        self._reason = self._reason or reason
        if self._cycle is not None:
            self._cycle.disconnect(reason)
        for cycle in self._pipeline:
            cycle.disconnect(reason)
        self._pipeline.clear()

    # --- clocks

    def tick(self, now: float) -> None:
        """Enforce the timeouts; called about once a second."""
        cycle, limits = self._cycle, self.limits
        if self._lost:
            return
        if self._writing_paused and self._is_stalled(now):
            self.abort(SLOW_READER)
        elif self._lingered >= 0:
            if now >= self._linger_until:
                self._transport.abort()
        elif self._closing:
            pass
        elif cycle is not None:
            self._detect_disconnect()
            if cycle is self._incoming and self._is_slow_body(cycle, now):
                self._reject(
                    RequestRejected(HTTPStatus.REQUEST_TIMEOUT, "the request body arrives too slowly")
                )
        elif self._upgraded is not None:
            pass
        elif self._head_bytes and now - self._head_since > limits.head_seconds:
            self._reject(RequestRejected(HTTPStatus.REQUEST_TIMEOUT, "the request head arrives too slowly"))
        elif now - self._head_since > self._idle_seconds():
            self._close_politely(linger=False)

    def _idle_seconds(self) -> float:
        if self._ends_idle:
            return FIRST_REQUEST_SECONDS
        return self.limits.idle_seconds if self._requests else self.limits.head_seconds

    def _is_slow_body(self, cycle: Cycle, now: float) -> bool:
        since, received = self._body_window
        if not cycle.wants_body:  # The application does not read: that is not the caller's fault.
            self._body_window = (now, self._body_received)
            return False
        if now - since < self.limits.window_seconds:
            return False
        self._body_window = (now, self._body_received)
        return self._body_received - received < self.limits.body_bytes

    def _is_stalled(self, now: float) -> bool:
        since, taken = self._write_window
        if now - since < self.limits.window_seconds:
            return False
        now_taken = self._taken()
        self._write_window = (now, now_taken)
        return now_taken - taken < self.limits.response_bytes

    def _taken(self) -> int:
        """Return how many bytes of all responses the caller's kernel has acknowledged."""
        return self._written - self._transport.get_write_buffer_size() - _unacknowledged(self._socket)

    def _detect_disconnect(self) -> None:
        """Detect that the caller has closed a connection that is not being read."""
        if not (self._eof or self._reading_paused):
            return
        state = _tcp_state(self._socket)
        if state == _TCP_CLOSE:
            self.abort(GONE)
        elif state == _TCP_CLOSE_WAIT and not self._eof:
            self._eof = True
            self._probe()

    def _probe(self) -> None:
        """Probe a half-closed connection with bytes that a live caller ignores.

        A caller that has closed the connection answers them with a reset, and its request can be cancelled.
        Before the response the probe is a 100 Continue; within a chunked response it is a leading zero of the
        next chunk size, of which RFC 9112 7.1 allows any number.
        """
        cycle = self._cycle
        if cycle is None or self._lost:
            return
        if cycle.is_chunked and not cycle.complete:
            self.write(b"0")
        elif not cycle.started and not cycle.is_http_1_0:
            self.write(_CONTINUE)
        self._loop.call_later(PROBE_SECONDS, self._detect_disconnect)


def _header_lines(headers: Headers) -> bytes:
    return b"".join(b"%s: %s\r\n" % pair for pair in headers)


def _rejection_of(error: httptools.HttpParserError, data: bytes) -> RequestRejected:
    if isinstance(error.__context__, RequestRejected):
        return error.__context__
    if "HTTP version" in str(error) or data.startswith(b"PRI * HTTP/2"):
        return RequestRejected(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are served")
    if isinstance(error, httptools.HttpParserInvalidMethodError) and _METHOD.match(data[:64]):
        return RequestRejected(HTTPStatus.NOT_IMPLEMENTED, "unknown method")
    return RequestRejected(HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1")


def _address(name: object) -> tuple[str, int] | None:
    """Return address and port of a TCP socket; None for a Unix socket."""
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) and len(name) >= 2 else None


def _tcp_state(connection: socket.socket | None) -> int:
    """Return the state of a TCP connection in Linux's numbers (tcp(7), TCP_INFO); 0 if it is unknown."""
    if connection is None or connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return 0
    try:
        with _duplicate(connection) as duplicate:
            return duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except (OSError, AttributeError):
        return 0


def _duplicate(connection: socket.socket) -> socket.socket:
    """Return a socket for the transport's connection: a transport's own lacks some methods."""
    return socket.fromfd(connection.fileno(), connection.family, connection.type)


def _unacknowledged(connection: socket.socket | None) -> int:
    """Return how many bytes in the kernel the peer has not acknowledged (SIOCOUTQ); 0 if it is unknown."""
    if connection is None:
        return 0
    try:
        import fcntl
        import termios

        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ImportError, AttributeError):
        return 0
    return int(struct.unpack("i", answer)[0])
