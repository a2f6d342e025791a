"""What HTTP costs below the application: stock Hypercorn beside our server, on uvloop, in the same run.

`python -m tests.benchmarks.http_layer` prints CPU microseconds for each request, and the ratio.
"""

import argparse
import asyncio
import socket
import statistics
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import hypercorn.asyncio
import uvloop
from hypercorn.config import Config
from quart import Quart

from proxy.server.config import ServerConfig
from proxy.server.serve import serve
from tests.benchmarks.load import build_request, connect
from tests.benchmarks.process import BenchError, cpu_ns

SERVERS: Final = ("hypercorn", "ours")
APPS: Final = ("ASGI", "Quart")
BAR: Final = 0.6
"""The highest cost of a bare Quart response, relative to stock Hypercorn."""
STARTS: Final = 3
"""How often each server is started."""
WARM_UP_REQUESTS: Final = 1000
_BODY: Final = b'{"ok": true}'


async def bare(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    """The smallest application: it answers every request briefly."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    length = (b"content-length", b"%d" % len(_BODY))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": _BODY})


def quart_app() -> Quart:
    """The smallest application on Quart."""
    app = Quart(__name__)

    @app.get("/")
    async def index() -> bytes:
        return _BODY

    return app


async def _serve(server: str, app: str, listener: socket.socket) -> None:
    answering: Any = bare if app == "ASGI" else quart_app()
    config = ServerConfig() if server == "ours" else Config()
    config.keep_alive_max_requests = 1_000_000
    if isinstance(config, ServerConfig):
        await serve(answering, config, [listener], asyncio.Event().wait)
    else:
        config.bind = [f"fd://{listener.fileno()}"]
        await hypercorn.asyncio.serve(answering, config, shutdown_trigger=asyncio.Event().wait)


async def measure(app: str, requests: int, rounds: int) -> tuple[dict[str, float], float]:
    """Return the CPU microseconds of one request by server, and the ratio of ours to Hypercorn.

    The servers take turns, and each is started several times: a machine changes its speed within seconds, and
    some processes run the same code up to a tenth slower. All are medians: the ratio is that of the turns.
    """
    measured: dict[str, list[float]] = {name: [] for name in SERVERS}
    for _ in range(STARTS):
        async with AsyncExitStack() as stack:
            processes = {name: await _start(name, app, stack) for name in SERVERS}
            for pid, url in processes.values():
                await _round(pid, url, WARM_UP_REQUESTS)
            for _ in range(rounds):
                for name, (pid, url) in processes.items():
                    measured[name].append(await _round(pid, url, requests))
    turns = zip(measured["ours"], measured["hypercorn"], strict=True)
    ratio = statistics.median(ours / stock for ours, stock in turns)
    return {name: statistics.median(costs) for name, costs in measured.items()}, ratio


async def _start(server: str, app: str, stack: AsyncExitStack) -> tuple[int, str]:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, "--serve", server, app, str(listener.fileno()),
        pass_fds=[listener.fileno()], stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    stack.push_async_callback(process.wait)
    stack.callback(process.kill)
    return process.pid, "http://{}:{}/".format(*listener.getsockname())


async def _round(pid: int, url: str, requests: int) -> float:
    request = build_request("GET", url, {})
    connection = await connect(url)
    try:
        if await connection.exchange(request, len) != 200:
            raise BenchError(f"{url} fails")
        began = cpu_ns([pid])
        for _ in range(requests):
            await connection.exchange(request, len)
        return (cpu_ns([pid]) - began) / 1000 / requests
    finally:
        connection.close()


def main(arguments: list[str]) -> int:
    """Print the table; with `--check`, exit 1 if Quart's ratio exceeds the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500, help="a turn (500)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each server after a start (7)")
    parser.add_argument("--check", action="store_true", help=f"exit 1 where Quart's ratio is over {BAR}")
    parser.add_argument("--serve", nargs=3, metavar=("SERVER", "APP", "FD"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve is not None:
        server, app, descriptor = options.serve
        uvloop.run(_serve(server, app, socket.socket(fileno=int(descriptor))))
        return 0
    ratio = 1.0
    print(f"{'application':<12} {'hypercorn':>10} {'ours':>8} {'ratio':>6}   CPU us a request")
    for app in APPS:
        costs, ratio = uvloop.run(measure(app, options.requests, options.rounds))
        print(f"{app:<12} {costs['hypercorn']:>10.1f} {costs['ours']:>8.1f} {ratio:>5.2f}x")
    return 1 if options.check and ratio > BAR else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
