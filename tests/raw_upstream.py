"""An upstream that sends exactly the bytes that a test chooses, when it chooses, and records its requests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Received:
    """A request as it was received."""

    head: bytes
    body: bytes = b""

    @property
    def target(self) -> bytes:
        """The raw request target."""
        return self.head.split(b" ", 2)[1]

    def header(self, name: str) -> list[str]:
        """Return every value of a header."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines if line)
        return [value.strip() for key, _, value in pairs if key.lower() == name.lower()]


@dataclass(eq=False)
class Conversation:
    """One request, and the connection on which it is answered."""

    request: Received
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes, *headers: str, status: str = "200 OK") -> None:
        """Send a whole response with its length."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        await self.say("\r\n".join(lines).encode() + body)

    async def start_stream(self, *headers: str, content_type: str = "text/event-stream") -> None:
        """Send the head of a chunked response."""
        lines = [
            "HTTP/1.1 200 OK",
            "Transfer-Encoding: chunked",
            f"Content-Type: {content_type}",
            *headers,
            "",
            "",
        ]
        await self.say("\r\n".join(lines).encode())

    async def chunk(self, data: bytes) -> None:
        """Send one chunk."""
        await self.say(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end(self) -> None:
        """Send the last chunk."""
        await self.say(b"0\r\n\r\n")

    async def caller_left(self) -> None:
        """Wait until the caller closes the connection."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        """Reset the connection."""
        self.writer.transport.abort()


Script = Callable[[Conversation], Awaitable[None]]


def stream_from(events: asyncio.Queue[bytes]) -> Script:
    """Return a script that streams the events that a test puts into a queue, until an empty one."""

    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        while event := await events.get():
            await talk.chunk(event)
        await talk.end()

    return script


@dataclass
class RawUpstream:
    """The address of the upstream, its requests, and its connections."""

    url: str = ""
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    accepted: int = 0
    """Connections since the start, including closed ones."""


@asynccontextmanager
async def raw_upstream(
    script: Script, idle_seconds: float | None = None, port: int = 0
) -> AsyncIterator[RawUpstream]:
    """Run a script for each request on a loopback port.

    Args:
        script: Answers a request.
        idle_seconds: How long a connection may wait for its next request.
        port: To listen on; a free one by default.
    """
    upstream = RawUpstream()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream.connections += 1
        upstream.accepted += 1
        try:
            head = await _read_head(reader, None)
            while True:
                request = await _read_request(reader, head)
                upstream.requests.append(request)
                await script(Conversation(request, reader, writer))
                head = await _read_head(reader, idle_seconds)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        finally:
            upstream.connections -= 1
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()


async def _read_head(reader: asyncio.StreamReader, seconds: float | None) -> bytes:
    async with asyncio.timeout(seconds):
        return await reader.readuntil(b"\r\n\r\n")


async def _read_request(reader: asyncio.StreamReader, head: bytes) -> Received:
    request = Received(head)
    if request.header("transfer-encoding"):
        while size := int(await reader.readline(), 16):
            request.body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readline()
    for length in request.header("content-length"):
        request.body = await reader.readexactly(int(length))
    return request
