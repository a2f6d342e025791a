"""TCP relays as a process of their own: `python -m tests.fleet.relays`. Each can break in several ways.

A member uses the relay in front of the issuer as its outbound HTTP proxy, so that the token endpoint has the
same URL at every member; a TCP relay is enough for that, because the issuer understands absolute URLs.
"""

import asyncio
import contextlib
import socket
from enum import StrEnum
from typing import Final

import uvloop

from tests.fleet.remote import serve

CHUNK_BYTES: Final = 1 << 16
_FORBIDDEN: Final = (
    b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 10\r\nconnection: close\r\n\r\n"
    b"not for you"[:10]
)


class Mode(StrEnum):
    """How a relay treats its connections."""

    FORWARD = "forward"
    HANG = "hang"
    """Accept connections, but forward nothing."""
    REFUSE = "refuse"
    """Listen no longer, and reset all connections."""
    FORBID = "forbid"
    """Answer each HTTP request with 403, like an outbound proxy with an allow-list."""
    VANISH = "vanish"
    """Ignore connection attempts, and reset all connections."""


class Relay:
    """A port whose connections are forwarded to another port.

    Args:
        target: Host and port.
        source: The address from which the relay connects to its target.
    """

    def __init__(self, target: tuple[str, int], source: str) -> None:
        self.target = target
        self.delay = 0.0
        self.port = 0
        self._source = source
        self._mode = Mode.FORWARD
        self._server: asyncio.Server | None = None
        self._full: list[socket.socket] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()

    async def switch(self, mode: Mode) -> None:
        """Switch to another mode."""
        self._mode = mode
        if mode is Mode.HANG:
            self._flows.clear()
        else:
            self._flows.set()
        if mode in {Mode.REFUSE, Mode.VANISH, Mode.FORBID}:
            self._cut()
        for full in self._full:
            full.close()
        await self._listen(wanted=mode not in {Mode.REFUSE, Mode.VANISH})
        self._full = self._overfull() if mode is Mode.VANISH else []

    def lead_to(self, target: tuple[str, int]) -> None:
        """Forward to another target, and cut the connections to the previous one."""
        self.target = target
        self._cut()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _listen(self, *, wanted: bool) -> None:
        if not wanted and self._server is not None:
            self._server.close()
            self._server = None
            await asyncio.sleep(0)  # uvloop closes the socket in its next round
        if wanted and self._server is None:
            self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def _overfull(self) -> list[socket.socket]:
        """Return a listener whose queue is full, so that the kernel ignores further connection attempts."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(0)
        callers = [socket.socket() for _ in range(3)]
        for caller in callers:
            caller.setblocking(False)  # noqa: FBT003  the API is positional
            with contextlib.suppress(BlockingIOError):
                caller.connect(("127.0.0.1", self.port))
        return [listener, *callers]

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if self._mode is Mode.FORBID:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(_FORBIDDEN)
                await writer.drain()
            else:
                await self._flows.wait()
                await self._forward(reader, writer)
        self._writers.discard(writer)
        writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self.target
        there = await asyncio.open_connection(host, port, local_addr=(self._source, 0))
        self._writers.add(there[1])
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pipe(reader, there[1], delayed=False))
                group.create_task(self._pipe(there[0], writer, delayed=True))
        except* OSError:
            pass
        finally:
            self._writers.discard(there[1])
            there[1].transport.abort()
            writer.transport.abort()

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delayed: bool
    ) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if delayed and self.delay:
                await asyncio.sleep(self.delay)
            await self._flows.wait()
            writer.write(chunk)
            await writer.drain()
        raise ConnectionAbortedError  # both directions end together


class Relays:
    """The methods that the harness calls."""

    def __init__(self) -> None:
        self._relays: dict[str, Relay] = {}

    async def open(self, name: str, port: int, source: str = "127.0.0.1") -> int:
        """Open a relay to a port of this machine, and return the port of the relay."""
        relay = self._relays[name] = Relay(("127.0.0.1", port), source)
        await relay.switch(Mode.FORWARD)
        return relay.port

    async def switch(self, names: list[str], mode: str, delay: float = 0.0) -> None:
        """Switch the mode of some relays."""
        for name in names:
            self._relays[name].delay = delay
            await self._relays[name].switch(Mode(mode))

    def lead_to(self, names: list[str], port: int) -> None:
        """Let some relays forward to another port."""
        for name in names:
            self._relays[name].lead_to(("127.0.0.1", port))


if __name__ == "__main__":
    uvloop.run(serve(Relays()))
