"""An upstream that says exactly the bytes it is told to, when it is told to; it remembers what came."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Received:
    """One request as it arrived."""

    head: bytes
    body: bytes = b""

    @property
    def target(self) -> bytes:
        """The raw request target."""
        return self.head.split(b" ", 2)[1]

    def header(self, name: str) -> list[str]:
        """Every value of a header."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines if line)
        return [value.strip() for key, _, value in pairs if key.lower() == name.lower()]


@dataclass
class Conversation:
    """One request being answered."""

    request: Received
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes, *headers: str, status: str = "200 OK") -> None:
        """Write a whole answer with its length."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        await self.say("\r\n".join(lines).encode() + body)

    async def start_stream(self, *headers: str, content_type: str = "text/event-stream") -> None:
        """Write the head of a chunked answer."""
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
        """Write one chunk."""
        await self.say(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end(self) -> None:
        """Write the last chunk."""
        await self.say(b"0\r\n\r\n")

    async def caller_left(self) -> None:
        """Wait until the other side closes."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        """Break the connection off."""
        self.writer.transport.abort()


Script = Callable[[Conversation], Awaitable[None]]


@dataclass
class RawUpstream:
    """Where it listens, what it was sent, how many connections are open."""

    url: str = ""
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    accepted: int = 0
    """Connections since the start, closed ones too."""


@asynccontextmanager
async def raw_upstream(script: Script, idle_seconds: float | None = None) -> AsyncIterator[RawUpstream]:
    """Serve a script, run once a request, on a free loopback port.

    Args:
        script: Answers a request.
        idle_seconds: How long a connection may wait for its next request.
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

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
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
