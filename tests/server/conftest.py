"""An ASGI application on our own server, and a caller that writes raw bytes."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from hypercorn.typing import ASGIFramework

from proxy.server.certificates import open_certificates
from proxy.server.config import ServerConfig
from proxy.server.http1 import Connection
from proxy.server.limits import ConnectionLimits
from proxy.server.serve import serve
from tests.pace import PATIENCE

Message = dict[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


@dataclass
class Echo:
    """An application that answers with the request, and records it."""

    seen: list[tuple[Message, bytes]] = field(default_factory=list)
    disconnects: list[str] = field(default_factory=list)

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects.append(message["reason"])
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.seen.append((scope, body))
        answer = b"%s %s|%s" % (scope["method"].encode(), scope["raw_path"], body)
        length = (b"content-length", b"%d" % len(answer))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": answer})


def with_lifespan(app: App) -> App:
    """Let an application of the tests take part in the lifespan."""

    async def wrapped(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    return wrapped


@dataclass
class Served:
    """A running server."""

    port: int
    stop: asyncio.Event

    async def connect(self) -> "Caller":
        """Open a connection."""
        return Caller(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24))

    async def talk(self, data: bytes, *, end: bool = False) -> bytes:
        """Write bytes, and return everything until the server closes; with `end`, close our side first."""
        caller = await self.connect()
        try:
            caller.writer.write(data)
            if end:
                caller.writer.write_eof()
            return await caller.rest()
        finally:
            caller.writer.close()


@dataclass
class Caller:
    """A connection of a caller."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def rest(self) -> bytes:
        """Return everything until the server closes."""
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(PATIENCE):
                return await self.reader.read()
        return b""

    async def head(self) -> bytes:
        """Return the head of the next response."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, count: int) -> bytes:
        """Return the next bytes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(count)


@asynccontextmanager
async def served(
    app: App,
    limits: ConnectionLimits | None = None,
    *,
    graceful: float = 1.0,
    max_connections: int | None = None,
    is_leaving: Callable[[], bool] = lambda: False,
    certificate: Path | None = None,
) -> AsyncIterator[Served]:
    """Serve an application on a free port, with TLS if there is a certificate."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = ServerConfig()
    config.errorlog = logging.getLogger("tests.server")
    config.include_server_header = False
    config.graceful_timeout = graceful
    config.certfile = config.keyfile = None if certificate is None else str(certificate)
    running = Served(listener.getsockname()[1], asyncio.Event())
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(
            serve(
                cast(ASGIFramework, with_lifespan(app)),
                config,
                [listener],
                running.stop.wait,
                limits,
                max_connections,
                is_leaving,
                open_certificates(config),
            )
        )
        try:
            yield running
        finally:
            running.stop.set()
            await asyncio.wait({serving}, timeout=PATIENCE)


def small_buffers(server_port: int) -> socket.socket:
    """A caller whose kernel takes little."""
    caller = socket.socket()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.connect(("127.0.0.1", server_port))
    caller.setblocking(False)  # noqa: FBT003
    return caller


async def read_all(caller: socket.socket) -> bytes:
    """Read everything until the server closes.

    Raises:
        ConnectionResetError: The server has reset the connection.
    """
    loop, received = asyncio.get_running_loop(), bytearray()
    async with asyncio.timeout(PATIENCE):
        while data := await loop.sock_recv(caller, 1 << 16):
            received += data
    return bytes(received)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The connections that the server has accepted."""
    connections = list[Connection]()
    made = Connection.connection_made

    def connection_made(connection: Connection, transport: asyncio.BaseTransport) -> None:
        made(connection, transport)
        connections.append(connection)

    monkeypatch.setattr(Connection, "connection_made", connection_made)
    return connections


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test on both event loops: their transports differ in what they report, and when."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
