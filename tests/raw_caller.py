"""A caller that writes raw HTTP and reads each byte as it arrives."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.conftest import KEY
from tests.pace import PATIENCE as PATIENCE


@dataclass
class RawAnswer:
    """A response as it was received."""

    status: int
    headers: list[tuple[str, str]]

    def header(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class RawCaller:
    """One connection to the service."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(
        self, method: str, target: str, *headers: str, body: bytes = b"", key: str | None = KEY
    ) -> None:
        """Write a request with a length."""
        lines = [f"{method} {target} HTTP/1.1", "Host: proxy.localhost", f"Content-Length: {len(body)}"]
        if key is not None:
            lines.append(f"Authorization: Bearer {key}")
        await self.write("\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body)

    async def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> RawAnswer:
        """Return the head of the next response."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")[:-2]
        pairs = [line.partition(": ") for line in lines]
        return RawAnswer(int(status.split()[1]), [(name, value) for name, _, value in pairs])

    async def chunk(self) -> bytes:
        """Return one chunk of a chunked body; no bytes for the last one."""
        async with asyncio.timeout(PATIENCE):
            size = int(await self.reader.readline(), 16)
            data = await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        return data

    async def body(self, answer: RawAnswer) -> bytes:
        """Return the whole body.

        Raises:
            asyncio.IncompleteReadError, ValueError: The body was cut off.
        """
        if answer.header("content-length"):
            async with asyncio.timeout(PATIENCE):
                return await self.reader.readexactly(int(answer.header("content-length")[0]))
        body = b""
        while data := await self.chunk():
            body += data
        return body

    async def closed(self) -> bytes:
        """Return all bytes until the server closes the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    def leave(self) -> None:
        """Close the connection."""
        self.writer.close()

    def reset(self) -> None:
        """Reset the connection."""
        self.writer.transport.abort()


@asynccontextmanager
async def raw_caller(url: str) -> AsyncIterator[RawCaller]:
    """Connect to the service."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=1 << 24)
    try:
        yield RawCaller(reader, writer)
    finally:
        writer.close()
