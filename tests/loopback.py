"""Serve any ASGI app with our server on a free loopback port, in the event loop of the test."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from hypercorn.typing import ASGIFramework

from proxy.cli.server import load_server_config
from proxy.server.other_servers import OURS, serve_on
from proxy.server.serve import serve
from tests.pace import PATIENCE, paced
from tests.waiting import look_again

TURNS: Final = 50
"""Turns of the event loop in which what a test waits for happens if it depends on nothing but the loop."""

SERVER_LOG = "tests.loopback"
CONNECTIONS = 10_000
GRACE_SECONDS = 0.5
"""How long requests that a test left open may continue."""


@asynccontextmanager
async def serve_on_loopback(
    app: ASGIFramework, host: str = "127.0.0.1", *, server: str = OURS
) -> AsyncIterator[str]:
    """Serve the app, and yield its address, such as `http://127.0.0.1:40001`.

    The socket listens before the server runs, so the first request only waits; nothing has to be polled.
    What Hypercorn's parts log goes to the logger `SERVER_LOG`, for `caplog` to see.
    """
    listener = socket.create_server((host, 0))
    address = f"http://{host}:{listener.getsockname()[1]}"
    config = load_server_config(None)
    config.errorlog = logging.getLogger(SERVER_LOG)
    config.graceful_timeout = paced(GRACE_SECONDS)
    config.keep_alive_timeout = PATIENCE  # a thousand callers on one loop are slow
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        if server == OURS:
            serving = group.create_task(serve(app, config, [listener], stop.wait))
        else:
            port = listener.getsockname()[1]
            others = serve_on(server, app, config, [listener], stop.wait, max_connections=CONNECTIONS)
            serving = group.create_task(others)
            await asyncio.sleep(
                0
            )  # Granian closes the listener and opens its own, which is the one to wait for.
            await until_accepting(host, port)
        try:
            yield address
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait({serving})


async def until_accepting(host: str, port: int) -> None:
    """Wait for a server that opens its socket itself."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except ConnectionError:
                await look_again()
            else:
                writer.close()
                return


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Let the event loop run until the condition holds, for some seconds at most.

    After a few turns of the loop the reason is outside it, or a timer, and polling would only take the
    processor from what the test waits for.
    """
    async with asyncio.timeout(seconds):
        for _ in range(TURNS):
            if condition():
                return
            await asyncio.sleep(0)
        while not condition():
            await look_again()
