"""The HTTP/1.1 of one request to an upstream: its head, and its response, parsed by llhttp (RFC 9112).

The parser's callbacks append to the buffer of the reader: bytes that arrive together cost one wake-up.
A response that two readers could understand differently is rejected: two lengths, a length and chunks, an
unknown transfer coding, a folded or broken header line.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import httptools
import httpx2

from proxy.wire.characters import NUL, SPACE
from proxy.wire.headers import Headers
from proxy.wire.response_end import BODILESS, SURPLUS, UNCLEAR, End, ResponseMeter
from proxy.wire.statuses import OK, SWITCHING_PROTOCOLS

HEAD_BYTES_MAX: Final = 64 * 1024
"""Names and values of all headers of a response, and as many of its trailers."""
HEADERS_MAX: Final = 256
INTERIM_RESPONSES_MAX: Final = 1000
"""More 1xx responses to one request are a defect or an attack."""
FRAMING_RATIO: Final = 16
"""Bytes of chunk sizes and extensions for each byte of the body, beyond `HEAD_BYTES_MAX`."""
LENGTH_DIGITS_MAX: Final = 18
"""Python raises an error for a number of thousands of digits."""

_WITHOUT_LENGTH: Final = frozenset({"GET", "HEAD", "OPTIONS", "CONNECT"})
_CODINGS: Final = frozenset({b"chunked", b"identity"})
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_TLS_ALERT: Final = b"\x15\x03"


def request_head(method: str, target: bytes, host: bytes, headers: Headers, body_length: int | None) -> bytes:
    """Return the head of a request.

    Args:
        method: The HTTP method.
        target: The raw request target.
        host: The value of Host, unless the headers have one.
        headers: All other headers. A Content-Length among them is that of a streamed body.
        body_length: The length of a held body; None for a streamed one, which is sent in chunks if its length
            is not among the headers.

    Raises:
        httpx2.LocalProtocolError: A line would not be one line, or the body would have two lengths.
        UnicodeDecodeError: The head is not UTF-8.
    """
    names = [name.lower() for name, _ in headers]
    lines = [b"%s %s HTTP/1.1\r\n" % (method.encode(), target)]
    if b"host" not in names:
        lines.append(b"Host: %s\r\n" % host)
    lines += [b"%s: %s\r\n" % pair for pair in headers]
    announced = names.count(b"content-length")
    if b"transfer-encoding" in names or announced > (body_length is None):
        raise httpx2.LocalProtocolError("the headers have a second length of the body")
    if body_length is None:
        if not announced:
            lines.append(b"Transfer-Encoding: chunked\r\n")
    elif body_length or method not in _WITHOUT_LENGTH:
        lines.append(b"Content-Length: %d\r\n" % body_length)
    lines.append(b"\r\n")
    head = b"".join(lines)
    head.decode()
    ends = len(lines)
    if head.count(b"\n") != ends or head.count(b"\r") != ends or NUL in head or SPACE in target:
        raise httpx2.LocalProtocolError("a request line or header holds a line break, a space or a null byte")
    return head


class ArrivingResponse:
    """The response to one request: the callbacks of the parser, and the reader of the body.

    Args:
        method: The method of the request.
    """

    __slots__ = (
        "_accepted", "_body", "_fault", "_has_head", "_is_bodiless", "_is_interim", "_parser", "_since_body",
        "_until_close", "_waiter", "after_upgrade", "body_bytes", "drained", "ended", "error", "headers",
        "interim", "keep_alive", "meter", "method", "offers_upgrade", "on_body", "status", "surplus",
        "unread", "version",
    )  # fmt: skip

    def __init__(self, method: str) -> None:
        self.method = method
        self.status = 0
        self.version = ""
        self.headers: Headers = []
        self.keep_alive = self.offers_upgrade = False
        self.interim = 0
        self.meter = ResponseMeter()
        self.body_bytes = self.unread = 0
        """Bytes of the body that have arrived, and that nobody has read yet."""
        self.ended = False
        """Whether the response is complete; its body may still have to be read."""
        self.surplus = False
        """Whether anything followed the complete response."""
        self.after_upgrade = b""
        """Bytes after a 101, already in the new protocol."""
        self.error: Exception | None = None
        self.drained: Callable[[], None] | None = None
        """Called once when the body that has arrived is read."""
        self._body: list[bytes] = []
        self.on_body = self._body.append
        """A callback of the parser. A stream may have hundreds of chunks, and a call in C is much cheaper."""
        self._accepted = 0
        """Bytes that had been received when the last head was complete."""
        self._since_body = 0
        """Bytes that have been received since the last byte of the body, or since the head."""
        self._has_head = self._is_bodiless = self._is_interim = self._until_close = False
        self._fault = ""
        self._waiter: asyncio.Future[None] | None = None
        # The parser refers to this object; drop it early so that no reference cycle remains.
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True,  # RFC 9112 2.2
            lenient_spaces_after_chunk_size=True,
        )

    async def head(self) -> None:
        """Wait for the head of the final response.

        Raises:
            httpx2.TransportError: There is none.
        """
        while not self._has_head:
            if self.error is not None:
                raise self.error
            await self._wait()

    async def read(self) -> bytes:
        """Return the bytes that have arrived, after a wait for the first one; none at the end of the body.

        Raises:
            httpx2.ReadError: The body broke off.
            Exception: The error given to `fail`.
        """
        while True:
            if self.error is not None:
                raise self.error
            if self._body or self.ended:
                break
            await self._wait()
        body = self._body
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        self.unread = 0
        if self.drained is not None:
            drained, self.drained = self.drained, None
            drained()
        return data

    def fail(self, error: Exception) -> None:
        """Make the read that waits, or the next one, raise this error."""
        self.error = self.error or error
        self._wake()

    def close(self) -> None:
        """Make further reads fail, and drop an error that was raised: its traceback refers to this object."""
        self.error = httpx2.ReadError("the response is closed")
        self._wake()

    def lost(self, error: BaseException | None) -> None:
        """End the response with its connection, whose end is proper if there is no error."""
        self._parser = None
        if self.ended or self.error is not None:
            return
        if self._until_close and error is None:
            self._end()
        elif self._has_head:
            self.fail(httpx2.ReadError("the connection ended within the body"))
        elif error is None:
            self.fail(httpx2.RemoteProtocolError("the upstream disconnected without a response"))
        else:
            failure = httpx2.ReadError("the connection to the upstream broke")
            failure.__cause__ = error
            self.fail(failure)

    def feed(self, data: bytes) -> None:
        """Parse bytes from the connection; a fault before the end of the response becomes its error."""
        parser = self._parser
        if parser is None:
            return
        self.meter.feed(data)
        self._since_body += len(data)
        pieces = len(self._body)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:  # a 101: `on_headers_complete` has ended the response
            self.after_upgrade = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if self.ended:  # Where the reads end must not decide whether a complete response is delivered.
                self.surplus = True
            else:
                self._fail_invalid(self._fault or str(error), data)
        if len(self._body) > pieces:
            self._count_body(pieces)
        if not self.ended and self.error is None:
            framing = self.meter.received - self.body_bytes - self._accepted
            # httptools copies a trailer as a whole whenever a piece of it arrives, so its length is limited,
            # however large the body was.
            if (
                framing > HEAD_BYTES_MAX + FRAMING_RATIO * self.body_bytes
                or self._since_body > HEAD_BYTES_MAX
            ):
                self._fail_invalid("the head or the framing of the response is too large", data)
        if self.ended or self.error is not None:
            self._parser = None

    def end(self) -> End:
        """Whether anything followed the complete response."""
        if self.surplus:
            return SURPLUS
        return UNCLEAR if self.interim else self.meter.end(self.method, self.status, self.headers)

    # --- callbacks of the parser

    def on_message_begin(self) -> None:
        """Begin a response; a second one belongs to nobody, and nothing of it is read."""
        if self.ended:
            self._reject("another response follows")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers are dropped."""
        if self._has_head:
            return
        self.headers.append((name, value.rstrip(b" \t")))
        if len(self.headers) > HEADERS_MAX:
            self._reject("the response has too many headers")

    def on_headers_complete(self) -> None:
        """Check the head, and decide how the body ends."""
        parser = self._parser
        if parser is None or self._has_head:
            return
        status, self.version = parser.get_status_code(), parser.get_http_version()
        framings, coding = 0, b"chunked"
        has_coding = False
        for name, value in self.headers:
            match name.lower():
                case b"content-length":
                    framings += 1
                    if len(value) > LENGTH_DIGITS_MAX:
                        self._reject("the length of the response has too many digits")
                case b"transfer-encoding":
                    framings, coding, has_coding = framings + 1, value.lower(), True
                case b"upgrade":
                    self.offers_upgrade = True
        if self.version not in _VERSIONS:
            self._reject("the response has another version of HTTP")
        large = self.meter.received > HEAD_BYTES_MAX
        if large and sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES_MAX:
            self._reject("the head of the response is too large")
        if framings > 1 or coding not in _CODINGS:
            self._reject("the length of the response is ambiguous")
        if status < OK and status != SWITCHING_PROTOCOLS:
            self.interim += 1
            if framings or self.interim > INTERIM_RESPONSES_MAX:
                self._reject("the upstream sent too many interim responses, or one with a body")
            self._is_interim = True
            return
        self.status, self._has_head = status, True
        self.keep_alive = parser.should_keep_alive()
        self._until_close = not framings or (has_coding and coding != b"chunked")
        self._accepted = self.meter.received
        self._since_body = 0
        self._is_bodiless = (
            status in BODILESS
            or status == SWITCHING_PROTOCOLS
            or self.method == "HEAD"
            or (self.method == "CONNECT" and status == OK)
        )
        if self._is_bodiless:
            self._end()
        else:
            self._wake()

    def on_message_complete(self) -> None:
        """End the response, or continue after an interim one."""
        if self._is_interim:
            self._is_interim = False
            self.headers = []
            self._accepted = self.meter.received
        elif not self.ended:
            self._end()

    # --- the rest

    def _count_body(self, pieces: int) -> None:
        """Count what has arrived after that many pieces, and pass it on, unless there can be no body."""
        if self._is_bodiless:
            self.surplus = True
            del self._body[pieces:]
            return
        arrived = sum(map(len, self._body[pieces:]))
        self._since_body = 0
        self.unread += arrived
        self.body_bytes += arrived
        self._wake()

    def _end(self) -> None:
        self.ended = True
        self._wake()

    def _reject(self, words: str) -> None:
        self._fault = words
        raise httptools.HttpParserError(words)

    def _fail_invalid(self, words: str, data: bytes) -> None:
        """Fail, because this is not valid HTTP."""
        if self._has_head:
            self.fail(httpx2.ReadError(words))
        else:
            is_alert = data.startswith(_TLS_ALERT)
            self.fail(httpx2.RemoteProtocolError(r"a TLS alert: x15\x03" if is_alert else words))

    async def _wait(self) -> None:
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            if self._waiter is waiter:  # Another reader may wait by now if this one was cancelled.
                self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
