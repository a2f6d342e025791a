"""Any ASGI app on a real socket: Hypercorn on a free loopback port, in the test's own event loop."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope

from proxy.cli.websocket_stream import closes_told
from tests.pace import PATIENCE, paced

SERVER_LOG = "tests.loopback"
GRACE_SECONDS = 0.5
"""How long requests that a test left open may go on."""


class _Requests:
    """An ASGI app, and which of its requests still run.

    When Hypercorn stops, it waits for its connections: on Python 3.11 until its own clock interrupts their
    clean-up, on newer ones for ever.
    """

    def __init__(self, app: ASGIFramework) -> None:
        self._app = app
        self._running: set[asyncio.Task[object]] = set()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        task = asyncio.current_task()
        if task is None or scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        self._running.add(task)
        try:
            await self._app(scope, receive, send)
        finally:
            self._running.discard(task)

    async def end(self) -> None:
        """Let them end, and cancel those that do not."""
        if self._running:
            await asyncio.wait(self._running, timeout=paced(GRACE_SECONDS))
        for task in self._running:
            task.cancel()


@asynccontextmanager
async def serve_on_loopback(app: ASGIFramework, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve the app and give its address, such as `http://127.0.0.1:40001`.

    The socket listens before the server runs, so the first request only waits; nothing has to be polled.
    What Hypercorn has to say goes to the logger `SERVER_LOG`, for `caplog` to see.
    """
    listener = socket.create_server((host, 0))
    address = f"http://{host}:{listener.getsockname()[1]}"
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]  # Hypercorn owns and closes it
    config.errorlog = logging.getLogger(SERVER_LOG)
    config.graceful_timeout = PATIENCE
    config.keep_alive_timeout = PATIENCE  # a thousand callers at once on one loop take their time
    config.backlog = 1024
    config.include_server_header = False
    requests, stop = _Requests(app), asyncio.Event()
    with closes_told():
        async with asyncio.TaskGroup() as group:
            server = group.create_task(serve(requests, config, shutdown_trigger=stop.wait))
            try:
                yield address
            finally:
                stop.set()
                await requests.end()
                async with asyncio.timeout(PATIENCE):
                    await asyncio.wait({server})


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Let the event loop run until the condition holds, for some seconds at most."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  any condition, with nobody to set an event
            await asyncio.sleep(0)
