"""The upstream and its token endpoint: a raw HTTP/1.1 server that is never the bottleneck.

It is a separate program (`python -m tests.benchmarks.upstream PORT`), so that its CPU time is not counted.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

import uvloop

from tests.benchmarks import wire

_CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_AUTHORIZATION: Final = re.compile(rb"\r\nauthorization:[ \t]*([^\r]*)", re.IGNORECASE)
_BEARER: Final = f"Bearer {wire.TOKEN}".encode()
_TOKEN_LIFE_MS: Final = 300_000
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def plain(status: str, body: bytes) -> bytes:
    """Return a whole JSON response."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def refusal(status: str) -> bytes:
    """Return a whole error response."""
    return plain(status, json.dumps({"error": {"message": status}}).encode())


def stream_pieces() -> list[bytes]:
    """Return a whole stream: its head, each event as a chunk, and its end."""
    return [_STREAM_HEAD, *map(wire.chunk, wire.stream_events()), wire.CHUNKED_END]


def token() -> bytes:
    """Return a new reply of the token endpoint."""
    expires = time.time_ns() // 1_000_000 + _TOKEN_LIFE_MS
    data = {"token": wire.TOKEN, "expireTime": expires}
    return plain("200 OK", json.dumps({"code": 0, "data": data}).encode())


@dataclass(frozen=True)
class Answers:
    """The constant responses, which are built once."""

    chat: bytes = field(default_factory=lambda: plain("200 OK", wire.chat_answer()))
    stream: list[bytes] = field(default_factory=stream_pieces)
    burst: bytes = field(default_factory=lambda: b"".join(stream_pieces()))
    embeddings: bytes = field(default_factory=lambda: plain("200 OK", wire.embeddings_answer()))
    upload: bytes = field(default_factory=lambda: plain("200 OK", b"{}"))
    download: bytes = field(default_factory=lambda: plain("200 OK", bytes(wire.LARGE_BYTES)))


class Pacer:
    """Sends the events of one stream on a fixed schedule; a late event does not delay the next ones."""

    def __init__(self, write: Callable[[bytes], None], nonce: str, events: int, interval: float) -> None:
        self._write = write
        self._nonce = nonce
        self._events = events
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._sent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tick(_STREAM_HEAD)

    def cancel(self) -> None:
        """Stop sending."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, head: bytes = b"") -> None:
        content = head + wire.chunk(wire.paced_event(self._nonce, self._sent, time.monotonic_ns()))
        self._sent += 1
        if self._sent < self._events:
            self._timer = self._loop.call_at(self._start + self._sent * self._interval, self._tick)
        else:
            content += wire.chunk(wire.DONE) + wire.CHUNKED_END
        self._write(content)


class Upstream(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._unread = bytearray()
        self._head = b""
        self._body_bytes = -1  # while the head is incomplete
        self._pacer: Pacer | None = None
        self._write: Callable[[bytes], None] = lambda _: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        way = cast(asyncio.WriteTransport, transport)  # uvloop's are not registered as such
        way.set_write_buffer_limits(0)  # uvloop would gather a flood's writes into one send
        self._write = way.write

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop a stream that nobody reads."""
        if self._pacer is not None:
            self._pacer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer every complete request."""
        self._unread += data
        while self._request_is_complete():
            body = bytes(self._unread[: self._body_bytes])
            del self._unread[: self._body_bytes]
            self._body_bytes = -1
            self._answer(self._head, body)

    def _request_is_complete(self) -> bool:
        if self._body_bytes < 0:
            end = self._unread.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._head = bytes(self._unread[:end])
            del self._unread[: end + 4]
            length = _CONTENT_LENGTH.search(self._head)
            self._body_bytes = int(length[1]) if length else 0
        return len(self._unread) >= self._body_bytes

    def _answer(self, head: bytes, body: bytes) -> None:
        authorization = _AUTHORIZATION.search(head)
        if head.startswith(b"POST /token "):
            self._write(token())
        elif authorization is None or authorization[1] != _BEARER:
            self._write(refusal("401 Unauthorized"))
        elif head.startswith(b"POST /v1/chat/completions "):
            self._chat(body)
        elif head.startswith(b"POST /v1/embeddings "):
            self._write(self._answers.embeddings)
        elif head.startswith(b"POST /v1/files "):
            self._write(self._answers.upload if len(body) == wire.LARGE_BYTES else refusal("400 Bad Request"))
        elif head.startswith(b"GET /v1/files/large/content "):
            self._write(self._answers.download)
        else:
            self._write(refusal("404 Not Found"))

    def _chat(self, body: bytes) -> None:
        try:
            request = json.loads(body)
        except ValueError:  # a truncated or chunked body: this server supports only Content-Length
            self._write(refusal("400 Bad Request"))
            return
        match request["model"]:
            case "bench-chat":
                self._write(self._answers.chat)
            case "bench-burst":
                self._write(self._answers.burst)
            case "bench-flood":
                for piece in self._answers.stream:
                    self._write(piece)
            case _:
                nonce, events, interval_ms = request["messages"][-1]["content"].split(".")
                self._pacer = Pacer(self._write, nonce, int(events), int(interval_ms) / 1000)


async def serve(port: int) -> None:
    """Serve until killed."""
    answers = Answers()
    server = await asyncio.get_running_loop().create_server(
        lambda: Upstream(answers), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
