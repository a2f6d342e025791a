"""The client: raw keep-alive connections, each with one exchange at a time."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, cast
from urllib.parse import urlsplit

CONNECT_SECONDS: Final = 5.0


class MalformedResponseError(Exception):
    """The server sent something other than the expected HTTP/1.1."""


class ResponseParser:
    """Parses one response as it arrives, wherever the reads end."""

    def __init__(self) -> None:
        self.status = 0
        self.done = False
        self.closes = False
        self._step: Callable[[], bytes | None] = self._read_head
        self._unread = b""
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """Return the bytes of the body in a read; raise MalformedResponseError if it is malformed."""
        self._unread += data
        body: list[bytes] = []
        while not self.done and (piece := self._step()) is not None:
            body.append(piece)
        if self.done and self._unread:
            raise MalformedResponseError(f"bytes after the end: {self._unread[:40]!r}")
        return b"".join(body)

    # Each step returns the bytes of the body that it has parsed, or None if it needs more bytes.

    def _read_head(self) -> bytes | None:
        end = self._unread.find(b"\r\n\r\n")
        if end < 0:
            return None
        status, *lines = self._unread[:end].split(b"\r\n")
        self._unread = self._unread[end + 4 :]
        if not status.startswith(b"HTTP/1.1 ") or not status[9:12].isdigit():
            raise MalformedResponseError(f"status line {status[:40]!r}")
        self.status = int(status[9:12])
        named = [line.partition(b":") for line in lines]
        self._frame({name.strip().lower(): value.strip().lower() for name, _, value in named})
        return b""

    def _frame(self, headers: Mapping[bytes, bytes]) -> None:
        self.closes = headers.get(b"connection") == b"close"
        if headers.get(b"transfer-encoding") == b"chunked":
            self._step = self._read_size
        elif (length := headers.get(b"content-length", b"")).isdigit():
            self._left = int(length)
            self._step = self._read_sized
            self.done = self._left == 0
        else:
            raise MalformedResponseError("neither chunked nor of known length")

    def _read_sized(self) -> bytes | None:
        piece = self._take()
        self.done = self._left == 0
        return piece

    def _read_size(self) -> bytes | None:
        line = self._line()
        if line is None:
            return None
        try:
            self._left = int(line.partition(b";")[0], 16)
        except ValueError as error:
            raise MalformedResponseError(f"chunk size {line[:40]!r}") from error
        self._step = self._read_chunk if self._left else self._read_trailer
        return b""

    def _read_chunk(self) -> bytes | None:
        piece = self._take()
        if self._left == 0:
            self._step = self._read_chunk_end
        return piece

    def _read_chunk_end(self) -> bytes | None:
        line = self._line()
        if line:
            raise MalformedResponseError(f"chunk longer than its size: {line[:40]!r}")
        self._step = self._read_size if line is not None else self._read_chunk_end
        return line

    def _read_trailer(self) -> bytes | None:
        line = self._line()
        self.done = line == b""
        return None if line is None else b""

    def _take(self) -> bytes | None:
        piece = self._unread[: self._left]
        self._unread = self._unread[len(piece) :]
        self._left -= len(piece)
        return piece or None

    def _line(self) -> bytes | None:
        line, mark, rest = self._unread.partition(b"\r\n")
        if not mark:
            return None
        self._unread = rest
        return line


class Connection(asyncio.Protocol):
    """One connection; `closed` shows whether the next exchange needs another one."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._parser = ResponseParser()
        self._sink: Callable[[bytes], object] = len
        self._answered: asyncio.Future[int] | None = None

    async def exchange(self, request: bytes, sink: Callable[[bytes], object]) -> int:
        """Send a request, give its answer's body to the sink as it comes, return the status.

        Raises:
            ConnectionError: the server went away first.
            MalformedResponseError: the answer is not HTTP.
        """
        if self.closed or self._transport is None:
            raise ConnectionError("closed before the request")
        self._parser = ResponseParser()
        self._sink = sink
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answered
        finally:
            self._answered = None
            if not self._parser.done or self._parser.closes:
                self.close()

    def close(self) -> None:
        """Abort the connection."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not registered as such

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, and wake the exchange at the end of the response."""
        if self._answered is None or self._answered.done():
            self.close()  # unsolicited bytes must not become the next response
            return
        try:
            if body := self._parser.feed(data):
                self._sink(body)
        except MalformedResponseError as error:
            self._answered.set_exception(error)
            return
        if self._parser.done:
            self._answered.set_result(self._parser.status)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the exchange in progress, if any."""
        self.closed = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionError("closed mid-answer"))


async def connect(url: str) -> Connection:
    """Open a connection to the server of a URL."""
    host, _, port = urlsplit(url).netloc.partition(":")
    async with asyncio.timeout(CONNECT_SECONDS):
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, host, int(port))
        return connection


def build_request(method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return the bytes of a whole request, which can be sent many times."""
    parts = urlsplit(url)
    fields = {
        "Host": parts.netloc,
        "Accept": "application/json",
        "Content-Type": "application/json",
        "User-Agent": "AsyncOpenAI/Python 2.8.1",
        "Content-Length": str(len(body)),
        **headers,
    }
    lines = [f"{method} {parts.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
