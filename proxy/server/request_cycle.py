"""One request and its response, as `receive` and `send` of ASGI; how responses are framed (RFC 9112 6)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Literal, Required, TypedDict

from proxy.server.request_head import Scope
from proxy.wire.characters import CR, LF, NUL
from proxy.wire.disconnect import EXTENSION, DisconnectExtension, OnDisconnect
from proxy.wire.headers import Headers
from proxy.wire.response_end import BODILESS
from proxy.wire.statuses import OK

if TYPE_CHECKING:
    from proxy.server.http1 import Connection

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}

DisconnectReason = str


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


def status_line(status: int) -> bytes:
    """Return the status line of a response; upstreams also have statuses that no standard names."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class _Framing(Enum):
    """How a caller can tell where a response body ends (RFC 9112 6.3)."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()


# Python 3.11 calls a function for each access to a member of an enumeration.
_NONE: Final = _Framing.NONE
_LENGTH: Final = _Framing.LENGTH
_CHUNKED: Final = _Framing.CHUNKED
_CLOSE: Final = _Framing.CLOSE


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
        self._framing: _Framing = _NONE
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
                self._connection.write(CONTINUE)
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:  # Another reader may wait by now if this one was cancelled.
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
            ConnectionResetError: The caller has disconnected.
            RuntimeError: The message is out of order, or the body differs from its Content-Length.
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
        lines = [status_line(status)]
        length: int | None = None
        for header, value in headers:
            name = header.lower()
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                self._close = self._close or value.lower().find(b"close") >= 0
                continue
            elif name == b"transfer-encoding":
                continue
            if LF in value or CR in value or NUL in value:
                raise RuntimeError("a response header holds a line break")
            lines += (name, b": ", value, b"\r\n")
        lines.append(connection.owner.common_headers())
        if self.method == "HEAD" or status in BODILESS or status < OK:
            self._framing = _NONE
        elif length is not None:
            self._framing, self._remaining = _LENGTH, length
        elif self.is_http_1_0:
            self._framing, self._close = _CLOSE, True
        else:
            self._framing = _CHUNKED
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
        if self._framing is _LENGTH:
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
        if self._framing is _CHUNKED:
            if data:
                parts += (b"%x\r\n" % len(data), data, b"\r\n")
            if last:
                parts.append(b"0\r\n\r\n")
        elif self._framing is not _NONE and data:
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
        return self.started and self._framing is _CHUNKED

    @property
    def ends_by_close(self) -> bool:
        """Whether only the end of the connection marks the end of the response, as in HTTP/1.0."""
        return self._framing is _CLOSE

    async def run(self) -> None:
        """Run the application; if it leaves the response incomplete, end it so that the caller sees that."""
        try:
            await self._connection.owner.app(self.scope, self.receive, self.send)
        except Exception as error:  # An ASGI application may raise anything; only its request may fail.
            if self.disconnected is None:
                self._connection.owner.failed(error)
        finally:
            self._left = None
            self.scope["extensions"].clear()  # a reference to this object
            if not self.complete and self.disconnected is None:
                self._connection.response_broken(self)
