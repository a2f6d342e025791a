"""Reads requests from the bytes of one connection, with llhttp (RFC 9110, RFC 9112)."""

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import httptools

from proxy.server.limits import (
    CHUNK_OVERHEAD_BYTES,
    CHUNK_OVERHEAD_RATIO,
    REQUEST_LINE_SPARE,
    RequestRejected,
)
from proxy.server.request_cycle import Cycle
from proxy.server.request_head import (
    Endpoints,
    Scope,
    build_scope,
    check_headers,
    header_lines,
    names_rtsp,
    unknown_method,
    unknown_version,
)
from proxy.wire.headers import Headers

if TYPE_CHECKING:
    from proxy.server.http1 import Connection

_METHOD: Final = re.compile(rb"\s*[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} ")
_TLS_HANDSHAKE: Final = b"\x16\x03"
"""The content type and the major version of TLS's first record (RFC 8446 5.1)."""
_OPTIONAL_WHITESPACE: Final = b" \t"
"""It may surround the value of a header (RFC 9110 5.5); llhttp removes it only before the value."""
_END_OF_LINE: Final = b" HTTP/1.1\r\n"
"""The end of nearly every request line. Neither a method nor a target contains a space."""
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class RequestReader:
    """Reads the requests of one connection; its methods `on_...` are the callbacks of llhttp."""

    def __init__(self, connection: "Connection", endpoints: Endpoints) -> None:
        self.requests = 0
        """The number of requests so far."""
        self.incoming: Cycle | None = None
        """The request whose body is arriving."""
        self.head_bytes = 0
        """Bytes of a head that has not arrived completely."""
        self.head_since = connection.loop.time()
        """When that head began, or when the connection became idle."""
        self.body_received = 0
        """Bytes of the body of the last request."""
        self._connection = connection
        self._limits = connection.limits
        self._endpoints = endpoints
        self._parser = httptools.HttpRequestParser(self)
        self._data = b""
        """The bytes that are being parsed."""
        self._earlier: list[bytes] = []
        """The bytes before them that contain the same head."""
        self._begins_data = True
        """Whether these bytes begin with the head, and not with the rest of another request."""
        self._target: list[bytes] = []
        self._target_bytes = 0
        self._headers: Headers = []
        self._lines_size = 0
        """The size of the header lines that have arrived."""
        self._head_size = 0
        self._overhead = 0
        self._since_body = 0
        self._reading_head = True
        self._resuming = self._skips_body = False
        self._websocket: Scope | None = None

    def close(self) -> None:
        """Release the parser, which refers to this object; otherwise only the collector could free both."""
        self.incoming = None
        del self._parser

    def feed(self, data: bytes) -> RequestRejected | None:
        """Parse bytes, and return why a request is rejected; None if none is."""
        if self._reading_head:
            if not self.head_bytes:
                self.head_since = self._connection.loop.time()
                self._begins_data = True
            self.head_bytes += len(data)
        else:
            self._overhead += len(data)
        self._since_body += len(data)
        self._data = data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._after_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            return _rejection_of(error, data)
        finally:
            self._data = b""
        if self._reading_head:
            if self.head_bytes:
                self._earlier.append(data)
            if self.head_bytes > self._limits.head_bytes:
                return _large_head()
            if self._target_bytes > self._limits.target_bytes:
                return _long_target()
            return None
        self._overhead += max(0, self.head_bytes - self._head_size)  # Bytes that arrived with the head.
        self.head_bytes = 0
        spare = CHUNK_OVERHEAD_BYTES + CHUNK_OVERHEAD_RATIO * self.body_received
        # httptools copies a trailer as a whole whenever a piece of it arrives, so its length is limited,
        # however large the body was.
        too_much = self._overhead - self.body_received > spare or self._since_body > CHUNK_OVERHEAD_BYTES
        if self.incoming is not None and too_much:
            return RequestRejected(HTTPStatus.BAD_REQUEST, "the body has too much framing")
        return None

    # --- the callbacks

    def on_message_begin(self) -> None:
        """Begin to collect the head of a request."""
        if self._resuming:
            return
        self._target, self._target_bytes, self._headers, self._lines_size = [], 0, [], 0
        self._overhead = self.body_received = 0
        self._earlier = []
        if not self.head_bytes:
            # It begins behind an earlier request, and llhttp does not say where.
            self._begins_data = False
            self.head_bytes, self.head_since = 1, self._connection.loop.time()

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
            value = value.rstrip(_OPTIONAL_WHITESPACE)
            self._headers.append((name.lower(), value))
            self._lines_size += len(name) + len(value) + len(b": \r\n")
            if len(self._headers) > self._limits.headers:
                raise RequestRejected(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header lines")

    def on_headers_complete(self) -> None:
        """Check what llhttp does not check, and hand the request to the connection.

        Raises:
            RequestRejected: The head is too large or ambiguous, or too many requests are pipelined.
        """
        if self._resuming:
            return
        self._reading_head = False
        self._since_body = 0
        self.requests += 1
        connection, parser, headers = self._connection, self._parser, self._headers
        target = self._target[0] if len(self._target) == 1 else b"".join(self._target)
        if len(target) > self._limits.target_bytes:
            raise _long_target()
        method = parser.get_method()
        version = self._version(method, target)
        scope = build_scope(target, method, version, headers, self._endpoints, connection.owner.state)
        head = len(scope["raw_path"]) + self._lines_size
        self._head_size = head + REQUEST_LINE_SPARE
        if head > self._limits.head_bytes:
            raise _large_head()
        expects, offers_websocket = check_headers(version, headers)
        is_upgrade = parser.should_upgrade()
        if offers_websocket and is_upgrade and scope["method"] == "GET":
            if connection.is_answering:
                raise RequestRejected(HTTPStatus.BAD_REQUEST, "a WebSocket handshake must not be pipelined")
            scope["type"] = "websocket"
            self._websocket = scope
            return
        self._skips_body = is_upgrade and any(name in _FRAMING for name, _ in headers)
        cycle = Cycle(connection, scope, keep_alive=parser.should_keep_alive(), expects=expects)
        connection.start(cycle)
        self.incoming = cycle

    def _version(self, method: bytes, target: bytes) -> str:
        """Return the version of HTTP.

        Raises:
            RequestRejected: 505, the protocol is another one.
        """
        at = len(method) + 1 + len(target)
        if self._begins_data and not self._earlier and self._data.startswith(_END_OF_LINE, at):
            return "1.1"  # Asking llhttp would take longer.
        lines = b"".join((*self._earlier, self._data))
        self._earlier = []
        if names_rtsp(lines, method, target):
            raise unknown_version()
        return self._parser.get_http_version()

    def on_body(self, body: bytes) -> None:
        """Pass bytes of the body to the request."""
        self.body_received += len(body)
        self._since_body = 0
        if self.incoming is not None:
            self.incoming.feed(body)

    def on_message_complete(self) -> None:
        """Mark the body of the request as complete."""
        if self._skips_body:
            self._skips_body = False  # httptools skips the body of every request with an upgrade.
            return
        self._reading_head, self.head_bytes = True, 0
        if self.incoming is not None:
            self.incoming.feed_end()
            self.incoming = None

    # --- upgrades

    def _after_upgrade(self, rest: bytes) -> RequestRejected | None:
        """Continue after a request with an Upgrade header; `rest` are the bytes after its head."""
        websocket, self._websocket = self._websocket, None
        if websocket is None:
            self._ignore_upgrade()
            return self.feed(rest) if rest else None
        try:
            self._connection.upgrade(websocket, rest)
        except RequestRejected as rejection:
            return rejection
        return None

    def _ignore_upgrade(self) -> None:
        """Continue in HTTP/1.1, as RFC 9110 7.8 allows, if a request offers h2c or another protocol.

        llhttp stops after the head of such a request, so a new parser that knows the framing continues.
        """
        self._parser = httptools.HttpRequestParser(self)
        if self.incoming is None:
            return
        framing = [pair for pair in self._headers if pair[0] in _FRAMING]
        self._resuming = True
        try:
            self._parser.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\n" + header_lines(framing) + b"\r\n")
        finally:
            self._resuming = False


def _large_head() -> RequestRejected:
    return RequestRejected(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request head is too large")


def _long_target() -> RequestRejected:
    return RequestRejected(HTTPStatus.REQUEST_URI_TOO_LONG, "the request target is too long")


def _rejection_of(error: httptools.HttpParserError, data: bytes) -> RequestRejected:
    if isinstance(error.__context__, RequestRejected):
        return error.__context__
    if "HTTP version" in str(error) or data.startswith(b"PRI * HTTP/2"):
        return unknown_version()
    if isinstance(error, httptools.HttpParserInvalidMethodError) and _METHOD.match(data[:64]):
        return unknown_method()
    if data.startswith(_TLS_HANDSHAKE):
        return RequestRejected(
            HTTPStatus.BAD_REQUEST, "the caller speaks TLS to a port that serves plain HTTP"
        )
    return RequestRejected(HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1")
