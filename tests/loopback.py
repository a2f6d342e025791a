"""Any ASGI app on a real socket: Hypercorn on a free loopback port, in the test's own event loop."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart

from proxy.cli.websocket_stream import closes_told

SERVER_LOG = "tests.loopback"
GRACE_SECONDS = 0.5
"""How long streams that a test left open may go on."""


@asynccontextmanager
async def serve_on_loopback(app: Quart, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve the app and give its address, such as `http://127.0.0.1:40001`.

    The socket listens before the server runs, so the first request only waits; nothing has to be polled.
    What Hypercorn has to say goes to the logger `SERVER_LOG`, for `caplog` to see.
    """
    listener = socket.create_server((host, 0))
    address = f"http://{host}:{listener.getsockname()[1]}"
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]  # Hypercorn owns and closes it
    config.errorlog = logging.getLogger(SERVER_LOG)
    config.graceful_timeout = GRACE_SECONDS
    config.keep_alive_timeout = 60.0  # a thousand callers at once on one loop take their time
    config.backlog = 1024
    config.include_server_header = False
    stop = asyncio.Event()
    with closes_told():
        async with asyncio.TaskGroup() as group:
            server = group.create_task(serve(app, config, shutdown_trigger=stop.wait))
            try:
                yield address
            finally:
                stop.set()
                # From Python 3.12 on the server waits for its connections before the graceful timeout begins.
                await asyncio.wait({server}, timeout=2 * GRACE_SECONDS)
                server.cancel()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Let the event loop run until the condition holds, for some seconds at most."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  any condition, with nobody to set an event
            await asyncio.sleep(0)
