"""How long garbage collections stall the service's event loop under mixed load.

`python -m tests.benchmarks.gc_pauses` runs the same load with Python's own settings of the collector and with
the service's, one after the other. (Linux, two cores.)
"""

import argparse
import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import uvloop

from tests.benchmarks import wire
from tests.benchmarks.__main__ import prepare_machine
from tests.benchmarks.load import connect
from tests.benchmarks.process import BenchError
from tests.benchmarks.scenarios import chat_request, stream_request
from tests.benchmarks.systems import Proxy
from tests.benchmarks.targets import Gateway

VARIANTS: Final = ("python", "service")
"""Whose settings of the collector apply."""
BAR_MS: Final = 20.0
"""The longest pause that is allowed."""
WARM_UP_SECONDS: Final = 2.0
_LARGE: Final = "x" * 200_000
_INTERVAL_MS: Final = 250
_EVENTS: Final = 40
_PAUSE_SECONDS: Final = 0.05


class Collection(NamedTuple):
    """One run of the collector."""

    at: float
    """On the monotonic clock, which all processes share."""
    generation: int
    ms: float
    """CPU time, to which other processes do not contribute."""


class MeasuredProxy(Proxy):
    """The service, which writes a record of its collections when it ends."""

    def __init__(self, home: Path, upstream: int, variant: str) -> None:
        super().__init__(home, upstream)
        self.record = home / "collections.json"
        self._variant = variant

    def python(self) -> str:
        """Return the tests' own Python, which runs this module."""
        return sys.executable

    def command(self) -> list[str]:
        """Return the command of `serve_measured`, which runs the service."""
        python, _, _, *serve = super().command()
        return [python, "-m", __spec__.name, "--measured", self._variant, str(self.record), *serve]


def serve_measured(variant: str, record: str, arguments: list[str]) -> int:
    """Run the service with a record of its collections."""
    collections: list[Collection] = []
    began = 0.0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        now = time.thread_time()
        if phase == "start":
            began = now
        else:
            collections.append(Collection(time.monotonic(), info["generation"], (now - began) * 1000))

    def ignore(*_: Any) -> None:
        """Change nothing."""

    if variant == "python":
        gc.freeze = gc.set_threshold = ignore
    gc.callbacks.append(note)
    from proxy.cli import main as serve

    try:
        return serve(arguments)
    finally:
        Path(record).write_text(json.dumps(collections))


async def measure(variant: str, streams: int, seconds: float, cores: Sequence[int]) -> list[Collection]:
    """Return the collections under the load."""
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        gateway = Gateway(home / "upstream", 0)
        stack.push_async_callback(gateway.process.stop)
        await gateway.start(cores[1])
        proxy = MeasuredProxy(home / "proxy", gateway.port, variant)
        stack.push_async_callback(proxy.process.stop)
        await proxy.start(cores[0])
        began = time.monotonic() + WARM_UP_SECONDS
        async with asyncio.TaskGroup() as group:
            until = began + seconds
            for _ in range(streams):
                group.create_task(_stream(proxy, until))
            for text in ("short", "short", _LARGE):
                group.create_task(_ask(proxy, text, until))
        await proxy.process.stop()
        if not proxy.record.exists():
            raise proxy.process.failure("left no record")
        collections = [Collection(*each) for each in json.loads(proxy.record.read_text())]
        return [each for each in collections if began <= each.at < until]


async def _stream(proxy: Proxy, until: float) -> None:
    """Open streams, one after the other, and leave one in five before its end."""
    _, request = stream_request(proxy, _EVENTS, _INTERVAL_MS)
    whole = _EVENTS * _INTERVAL_MS / 1000
    while (left := until - time.monotonic()) > 0:
        connection = await connect(proxy.url)
        patience = whole * random.random() if random.random() < 0.2 else 2 * whole
        try:
            async with asyncio.timeout(min(patience, left)):
                await connection.exchange(request, len)
        except TimeoutError:
            pass
        finally:
            connection.close()


async def _ask(proxy: Proxy, text: str, until: float) -> None:
    """Send requests, each on a new connection."""
    request = chat_request(proxy, wire.request_body("bench-chat", stream=False, question=text))
    while time.monotonic() < until:
        connection = await connect(proxy.url)
        try:
            if (status := await connection.exchange(request, len)) != 200:
                raise BenchError(f"status {status}")
        finally:
            connection.close()
        await asyncio.sleep(_PAUSE_SECONDS)


def main(arguments: list[str]) -> int:
    """Print the table; exit 1 with `--check` if the service's collector stalls its loop for too long."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gc_pauses", description=__doc__)
    parser.add_argument("--streams", type=int, default=60, help="at the same time (60)")
    parser.add_argument("--seconds", type=float, default=60, help="of load for each variant (60)")
    parser.add_argument("--check", action="store_true", help=f"exit 1 at a pause of over {BAR_MS:g} ms")
    parser.add_argument("--measured", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measured is not None:
        variant, record, *serve = options.measured
        return serve_measured(variant, record, serve)
    cores = prepare_machine()
    print(
        f"{'settings':<10} {'generation':>10} {'runs':>7} {'total ms':>9} {'longest ms':>10} {'over bar':>8}"
    )
    for variant in VARIANTS:
        over = 0
        collections = uvloop.run(measure(variant, options.streams, options.seconds, cores))
        for generation in range(3):
            pauses = [each.ms for each in collections if each.generation == generation]
            over += (late := sum(pause > BAR_MS for pause in pauses))
            figures = f"{len(pauses):>7} {sum(pauses):>9.1f} {max(pauses, default=0.0):>10.1f} {late:>8}"
            print(f"{variant:<10} {generation:>10} {figures}")
    return 1 if options.check and over else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
