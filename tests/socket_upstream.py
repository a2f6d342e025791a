"""An upstream that accepts WebSockets, runs a script for each, and records the handshakes."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web

Script = Callable[[web.WebSocketResponse], Awaitable[None]]
Gate = Callable[[web.Request], web.Response | None]


@dataclass
class SocketUpstream:
    """The handshakes and close codes that an upstream received."""

    url: str = ""
    handshakes: list[web.Request] = field(default_factory=list)
    closes: asyncio.Queue[int | None] = field(default_factory=asyncio.Queue)
    """The close code of each socket, as the upstream received it."""
    reasons: list[str] = field(default_factory=list)


async def echo(socket: web.WebSocketResponse) -> None:
    """Send every message back, and accept the close."""
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)


@asynccontextmanager
async def socket_upstream(
    script: Script = echo,
    gate: Gate = lambda _: None,
    protocols: tuple[str, ...] = ("realtime",),
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[SocketUpstream]:
    """Serve on loopback.

    Args:
        script: Speaks on an open socket.
        gate: May answer a handshake with something else.
        protocols: Subprotocols that it knows.
        tls: For wss.
    """
    own = SocketUpstream()

    async def serve(request: web.Request) -> web.StreamResponse:
        own.handshakes.append(request)
        if (refusal := gate(request)) is not None:
            return refusal
        socket = web.WebSocketResponse(protocols=protocols, max_msg_size=64 * 1024 * 1024, timeout=1.0)
        await socket.prepare(request)
        try:
            await script(socket)
        finally:
            own.closes.put_nowait(socket.close_code)
        return socket

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        host, port = runner.addresses[0][:2]
        own.url = f"{'https' if tls else 'http'}://{host}:{port}"
        yield own
    finally:
        await runner.cleanup()
