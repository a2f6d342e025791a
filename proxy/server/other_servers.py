"""Serve the application on uvicorn or Granian instead of our own HTTP layer.

Both are extras. What they do differently is in docs/operations.md.
"""

import asyncio
import contextlib
import importlib.util
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope

from proxy.errors import SettingsError
from proxy.server.config import ServerConfig
from proxy.shipped import install_command
from proxy.task_groups import task_group

OURS: Final = "hypercorn"
"""Our HTTP layer, which reads Hypercorn's configuration."""


def check_server(server: str, config: ServerConfig, workers: int, inherited: Sequence[socket.socket]) -> None:
    """Reject a server that is not installed, or that cannot serve this configuration.

    Raises:
        SettingsError: One line for each problem.
    """
    if server == OURS:
        return
    problems = []
    if importlib.util.find_spec(server) is None:
        problems.append(f"the package {server} is not installed: {install_command(server)}")
    if config.certfile is not None:
        problems.append("certfile: TLS needs the server hypercorn")
    if server == "granian":
        if workers > 1:
            problems.append("it serves with one worker")
        if inherited or len(config.bind) > 1 or config.bind[0].startswith("unix:"):
            problems.append("it opens its socket itself, on one address HOST:PORT")
    if problems:
        raise SettingsError(*(f"--server {server}: {problem}" for problem in problems))


async def serve_on(
    server: str,
    app: ASGIFramework,
    config: ServerConfig,
    sockets: list[socket.socket],
    stopped: Callable[[], Awaitable[object]],
    *,
    max_connections: int,
) -> None:
    """Serve on uvicorn or Granian until `stopped` returns, and then until the requests have ended.

    Raises:
        RuntimeError: The server ended before.
    """
    started = asyncio.Event()
    prepare = _prepare_uvicorn if server == "uvicorn" else _prepare_granian
    serving, stop = prepare(_reporting(app, started), config, sockets, max_connections)

    async def stop_at_the_end() -> None:
        await started.wait()
        await stopped()
        stop()

    async with task_group() as group:
        stopper = group.create_task(stop_at_the_end())
        try:
            await serving
            if not stopper.done():
                raise RuntimeError("the server ended by itself; see the log")
        except SystemExit as error:  # how uvicorn reports that the application did not start
            raise RuntimeError("the server ended by itself; see the log") from error
        finally:
            stopper.cancel()


def _prepare_uvicorn(
    app: ASGIFramework, config: ServerConfig, sockets: list[socket.socket], max_connections: int
) -> tuple[Awaitable[None], Callable[[], None]]:
    """Return what serves, and a function that ends it."""
    import uvicorn

    class SignalFreeServer(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Leave the signals to us."""
            yield

    server = SignalFreeServer(
        uvicorn.Config(
            app,
            interface="asgi3",
            http="httptools",
            ws="wsproto",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=config.include_server_header,
            root_path=config.root_path,
            backlog=config.backlog,
            limit_concurrency=max_connections,
            timeout_keep_alive=int(config.keep_alive_timeout),
            timeout_graceful_shutdown=int(config.graceful_timeout),
            ws_max_size=config.websocket_max_message_size,
            ws_ping_interval=config.websocket_ping_interval,
        )
    )

    def stop() -> None:
        server.should_exit = True

    return server.serve(sockets), stop


def _prepare_granian(
    app: ASGIFramework, config: ServerConfig, sockets: list[socket.socket], max_connections: int
) -> tuple[Awaitable[None], Callable[[], None]]:
    """Return what serves, and a function that ends it."""
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels
    from granian.server.embed import Server

    (listener,) = sockets
    host, port = listener.getsockname()[:2]
    listener.close()  # Granian binds the address itself.
    server = Server(
        app,
        host,
        port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=int(config.keep_alive_timeout * 1000)),
        backlog=config.backlog,
        backpressure=max_connections,
        log_level=LogLevels.error,
        # Send its log lines to our log.
        log_dictconfig={"incremental": True, "handlers": {}, "loggers": {}},
    )
    return server.serve(), server.stop


def _reporting(app: ASGIFramework, started: asyncio.Event) -> ASGIFramework:
    """Wrap the application: set the event when it has started."""

    async def wrapped(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def report(message: ASGISendEvent) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                started.set()

        await app(scope, receive, report if scope["type"] == "lifespan" else send)

    return wrapped
