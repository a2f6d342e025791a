"""Upstreams that violate HTTP in ways that could give one caller the response of another.

Each request names its nonce in its target (`/v1/x?nonce=...`), and each answer repeats the nonce of the
request that it belongs to, in a header and in its body. A caller that finds any other nonce has received
foreign bytes.
"""

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from tests.waiting import delay

NONCE: Final = re.compile(rb"nonce=([A-Za-z]+-\d{6})")
"""Its length is fixed, so that a response that is cut within one contains none."""
_LATER_SECONDS: Final = 0.04
_THINKING_SECONDS: Final = (0.0, 0.0, 0.0005, 0.002)
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"transfer-encoding: *chunked", re.IGNORECASE)


@dataclass
class Talk:
    """A request and its connection."""

    head: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    random: random.Random
    streams: bool

    @property
    def nonce(self) -> bytes:
        """The nonce of this request."""
        return self.nonce_of(self.head)

    @staticmethod
    def nonce_of(head: bytes) -> bytes:
        """Return the nonce that a request names."""
        found = NONCE.search(head)
        return found.group(1) if found else b"none-0"

    @property
    def is_head(self) -> bool:
        """Whether the response must not have a body."""
        return self.head.startswith(b"HEAD ")

    async def read_body(self) -> None:
        """Read the body, whatever the method."""
        if _CHUNKED.search(self.head):
            while size := int(await self.reader.readline(), 16):
                await self.reader.readexactly(size + 2)
            await self.reader.readline()
        elif found := _LENGTH.search(self.head):
            await self.reader.readexactly(int(found.group(1)))

    def answer(self, status: bytes = b"200 OK", version: bytes = b"1.1", extra: bytes = b"") -> bytes:
        """Return a correct response, plain or as an event stream."""
        nonce = self.nonce
        start = b"HTTP/%s %s\r\nX-Nonce: nonce=%s\r\n%s" % (version, status, nonce, extra)
        if self.streams:
            events = [b'data: {"n":%d,"nonce=%s":1}\n\n' % (n, nonce) for n in range(3)]
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(e), e) for e in [*events, b"data: [DONE]\n\n"])
            head = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            return start + head + (b"" if self.is_head else chunks + b"0\r\n\r\n")
        body = b'{"nonce=%s":"%s"}' % (nonce, b"x" * self.random.randrange(200))
        head = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        return start + head + (b"" if self.is_head else body)

    async def say(self, data: bytes) -> None:
        """Send bytes in one piece."""
        self.writer.write(data)
        await self.writer.drain()

    def say_later(self, data: bytes, seconds: float | None = None) -> None:
        """Send bytes after a moment, while the connection continues."""

        def say() -> None:
            if not self.writer.is_closing():
                self.writer.write(data)

        wait = self.random.uniform(0, _LATER_SECONDS) if seconds is None else seconds
        asyncio.get_running_loop().call_later(wait, say)


Script = Callable[[Talk], Awaitable[None]]


async def honest(talk: Talk) -> None:
    """Answer correctly."""
    await talk.read_body()
    await talk.say(talk.answer())


async def second_answer_at_once(talk: Talk) -> None:
    """Send two responses in one write."""
    await talk.read_body()
    await talk.say(talk.answer() * 2)


async def second_answer_soon(talk: Talk) -> None:
    """Send two responses in two writes."""
    await talk.read_body()
    await talk.say(talk.answer())
    await talk.say(talk.answer())


async def second_answer_later(talk: Talk) -> None:
    """Send a second response a moment later, even if another request has arrived."""
    await talk.read_body()
    await talk.say(talk.answer())
    talk.say_later(talk.answer())


async def second_answer_before_the_next_request(talk: Talk) -> None:
    """Send a second response a moment later, and read the next request only then."""
    await honest(talk)
    await delay(talk.random.uniform(0, _LATER_SECONDS))
    await talk.say(talk.answer())


async def second_answer_in_pieces(talk: Talk) -> None:
    """Begin a second response directly after the first, and end it later."""
    await talk.read_body()
    answer = talk.answer()
    cut = talk.random.randrange(1, len(answer))
    await talk.say(talk.answer() + answer[:cut])
    talk.say_later(answer[cut:])


async def pipelined_answers(talk: Talk) -> None:
    """Send five responses to each request."""
    await talk.read_body()
    for _ in range(5):
        await talk.say(talk.answer())
        await asyncio.sleep(0)


async def body_not_read(talk: Talk) -> None:
    """Read the body as the next request."""
    await talk.say(talk.answer())


async def error_without_reading_the_body(talk: Talk) -> None:
    """Reject the request, and read its body as the next request."""
    await talk.say(talk.answer(b"404 Not Found" if _LENGTH.search(talk.head) else b"200 OK"))


async def length_too_short(talk: Talk) -> None:
    """Announce a smaller length than is sent."""
    await talk.read_body()
    body = b'{"nonce=%s":1}' % talk.nonce
    length = talk.random.randrange(len(body))
    head = b"HTTP/1.1 200 OK\r\nX-Nonce: nonce=%s\r\nContent-Length: %d\r\n\r\n"
    await talk.say(head % (talk.nonce, length))
    await talk.say(body)


async def length_too_short_by_an_answer(talk: Talk) -> None:
    """Send a response as the rest of another one."""
    await talk.read_body()
    talk.streams = False
    await talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await talk.say(talk.answer())


async def length_too_long(talk: Talk) -> None:
    """Announce a larger length than is sent, and sometimes close."""
    await talk.read_body()
    body = b'{"nonce=%s":1}' % talk.nonce
    await talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body) + 100, body))
    if talk.random.random() < 0.9:
        talk.writer.close()


async def interim_flood(talk: Talk) -> None:
    """Send interim responses before and after the response."""
    await talk.read_body()
    interim = b"HTTP/1.1 103 Early Hints\r\nX-Nonce: nonce=%s\r\n\r\n" % talk.nonce
    await talk.say(interim * talk.random.randrange(50) + talk.answer())
    talk.say_later(interim * 50)


async def trailing_garbage(talk: Talk) -> None:
    """Send some bytes after the response, at once or later."""
    await talk.read_body()
    garbage = talk.random.choice(
        [b"\r\n", b"\n", b"nonce=%s" % talk.nonce, b"HTTP/1.1 2", b"0\r\n\r\n", b"\0"]
    )
    if talk.random.random() < 0.5:
        await talk.say(talk.answer() + garbage)
    else:
        await talk.say(talk.answer())
        talk.say_later(garbage + talk.answer())


async def answer_before_the_body(talk: Talk) -> None:
    """Respond when the head has arrived, and again when the body has."""
    await talk.say(talk.answer())
    await talk.read_body()
    await talk.say(talk.answer())


async def old_keep_alive(talk: Talk) -> None:
    """Speak HTTP/1.0 with keep-alive, and respond twice."""
    await talk.read_body()
    talk.streams = False
    await talk.say(talk.answer(version=b"1.0", extra=b"Connection: keep-alive\r\n"))
    talk.say_later(talk.answer())


async def two_framings(talk: Talk) -> None:
    """Announce both a length and chunks."""
    await talk.read_body()
    talk.streams = True
    await talk.say(talk.answer(extra=b"Content-Length: 5\r\n"))
    talk.say_later(talk.answer())


async def unknown_coding(talk: Talk) -> None:
    """Announce an unknown transfer coding."""
    await talk.read_body()
    talk.streams = False
    await talk.say(talk.answer(extra=b"Transfer-Encoding: xyzzy, chunked\r\n") + b"0\r\n\r\n")
    talk.say_later(talk.answer())


async def body_where_none_may_be(talk: Talk) -> None:
    """Send a body with a 204, a 304, or the response to a HEAD."""
    await talk.read_body()
    status = talk.random.choice([b"204 No Content", b"304 Not Modified", b"200 OK"])
    talk.head = talk.head.replace(b"HEAD ", b"GET ", 1)
    await talk.say(talk.answer(status))


async def unasked_upgrade(talk: Talk) -> None:
    """Switch protocols, or offer an upgrade."""
    await talk.read_body()
    if talk.random.random() < 0.5:
        await talk.say(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
    await talk.say(talk.answer(extra=b"Upgrade: h2c\r\nConnection: Upgrade\r\n") * 2)


async def trailers_and_more(talk: Talk) -> None:
    """End a chunked body with trailers, and continue."""
    await talk.read_body()
    talk.streams = True
    answer = talk.answer().removesuffix(b"\r\n")
    await talk.say(answer + b"X-Trailer: nonce=%s\r\n\r\n" % talk.nonce)
    talk.say_later(b"5\r\nhello\r\n" + talk.answer())


async def idle_close(talk: Talk) -> None:
    """Answer, and close the connection a moment later."""
    await talk.read_body()
    await talk.say(talk.answer())
    asyncio.get_running_loop().call_later(talk.random.uniform(0, 0.1), talk.writer.close)


MISBEHAVIOURS: Final[list[Script]] = [
    second_answer_at_once,
    second_answer_soon,
    second_answer_later,
    second_answer_before_the_next_request,
    second_answer_in_pieces,
    pipelined_answers,
    body_not_read,
    error_without_reading_the_body,
    length_too_short,
    length_too_short_by_an_answer,
    length_too_long,
    interim_flood,
    trailing_garbage,
    answer_before_the_body,
    old_keep_alive,
    two_framings,
    unknown_coding,
    body_where_none_may_be,
    unasked_upgrade,
    trailers_and_more,
    idle_close,
]

UNREADABLE: Final = {length_too_short, length_too_short_by_an_answer, two_framings, unknown_coding}
"""Upstreams whose responses are rejected, or contain no nonce."""


@dataclass
class Misbehaving:
    """A running upstream."""

    url: str = ""
    requests: int = 0
    connections: int = 0
    """Connections since the start."""
    open: int = 0
    seen: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def misbehaving_upstream(
    choose: Callable[[random.Random], Script], seed: int, *, streams: bool | None = False
) -> AsyncIterator[Misbehaving]:
    """Serve on loopback.

    Args:
        choose: The script of each request.
        seed: The seed of all random choices; with the nonce of a request it decides the response.
        streams: Whether responses are event streams; None for a random choice for each request.
    """
    own = Misbehaving()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own.connections += 1
        own.open += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    draw = random.Random(f"{seed}:{Talk.nonce_of(head).decode()}")
                    await delay(draw.choice(_THINKING_SECONDS))
                    own.requests += 1
                    is_stream = draw.random() < 0.5 if streams is None else streams
                    await choose(draw)(Talk(head, reader, writer, draw, is_stream))
        finally:
            own.open -= 1
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    own.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield own
    finally:
        server.close()
