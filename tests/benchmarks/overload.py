"""What callers notice of an overload that one of them causes.

`python -m tests.benchmarks.overload` holds streams, floods the service with the key of another caller, and
lets a third one send a request now and then: with and without `max_loop_lag`. The last column is the share of
a core that the service, the upstream and the callers get: the figures are those of the service only where it
is alone on its core and needs all of it. (Linux, two cores.)
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import uvloop

from tests.benchmarks import wire
from tests.benchmarks.__main__ import prepare_machine
from tests.benchmarks.load import build_request, connect
from tests.benchmarks.process import cpu_ns
from tests.benchmarks.rounds import quantile
from tests.benchmarks.scenarios import stream_request
from tests.benchmarks.systems import Proxy
from tests.benchmarks.targets import Gateway

MAX_LAG: Final = 0.03
INTERVAL_MS: Final = 250
PAUSE_SECONDS: Final = 0.1
RETRY_SECONDS: Final = 1.0
"""How long a rejected caller waits, as Retry-After requires."""
SETTLE_SECONDS: Final = 2.0
KEYS: Final = {name: f"sk-bench-{name}-7c1f" for name in ("flood", "modest")}
_KEY: Final = '[[access.keys]]\nname = "{}"\nkey = "{}"\n'


class LimitedProxy(Proxy):
    """The service with the keys of several callers, and `max_loop_lag`."""

    def __init__(self, home: Path, upstream: int, max_lag: float) -> None:
        super().__init__(home, upstream)
        self._max_lag = max_lag

    def command(self) -> list[str]:
        """Return the command, after adding settings."""
        command = super().command()
        with (self.home / "proxy.toml").open("a") as settings:
            settings.write("".join(_KEY.format(*pair) for pair in KEYS.items()))
            settings.write(f"[limits]\nmax_loop_lag = {self._max_lag}\n")
        return command

    def request(self, key: str, body: bytes) -> bytes:
        """Return a chat request of one caller."""
        return build_request("POST", f"{self.url}/chat/completions", {"Authorization": f"Bearer {key}"}, body)


@dataclass
class Seen:
    """The observations of the callers in one phase."""

    gaps: list[float] = field(default_factory=list)
    """Seconds between two events of a held stream."""
    accepted: list[float] = field(default_factory=list)
    """Durations of the flood's accepted requests, and of its rejected ones."""
    refused: list[float] = field(default_factory=list)
    modest: list[float] = field(default_factory=list)
    """Durations of the third caller's requests."""
    modest_refused: int = 0
    busy: tuple[float, ...] = ()
    """The share of its core that the service, the upstream and the callers needed."""


async def measure(
    max_lag: float, streams: int, flood: int, seconds: float, cores: Sequence[int]
) -> tuple[Seen, Seen]:
    """Return the observations of the callers before and during the flood."""
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        gateway = Gateway(home / "upstream", 0)
        stack.push_async_callback(gateway.process.stop)
        await gateway.start(cores[1])
        proxy = LimitedProxy(home / "proxy", gateway.port, max_lag)
        stack.push_async_callback(proxy.process.stop)
        await proxy.start(cores[0])
        calm, flooded = Seen(), Seen()
        phase = [calm]
        async with asyncio.TaskGroup() as group:
            events = round((2 * SETTLE_SECONDS + 2 * seconds + 5) * 1000 / INTERVAL_MS)
            held = [group.create_task(_hold(proxy, events, phase, n / streams)) for n in range(streams)]
            modest = group.create_task(_ask_now_and_then(proxy, phase))
            await asyncio.sleep(SETTLE_SECONDS)
            calm.gaps.clear()
            calm.busy = await _busy(seconds, proxy.pids(), gateway.pids())
            phase[0] = Seen()
            floods = [group.create_task(_flood(proxy, phase)) for _ in range(flood)]
            await asyncio.sleep(SETTLE_SECONDS)
            phase[0] = flooded
            flooded.busy = await _busy(seconds, proxy.pids(), gateway.pids())
            for task in [*held, *floods, modest]:
                task.cancel()
        return calm, flooded


async def _busy(seconds: float, *others: Sequence[int]) -> tuple[float, ...]:
    """Wait, and return the share of a core that other processes and this one needed meanwhile."""
    groups = [*others, [os.getpid()]]
    began, before = time.monotonic(), [cpu_ns(group) for group in groups]
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    return tuple((cpu_ns(group) - ns) / 1e9 / took for group, ns in zip(groups, before, strict=True))


async def _hold(proxy: LimitedProxy, events: int, phase: list[Seen], delay: float) -> None:
    """Hold a stream, and record the intervals of its events."""
    await asyncio.sleep(delay)
    _, request = stream_request(proxy, events, INTERVAL_MS)
    last = 0.0

    def note(_: bytes) -> None:
        nonlocal last
        now = time.monotonic()
        if last:
            phase[0].gaps.append(now - last)
        last = now

    connection = await connect(proxy.url)
    try:
        await connection.exchange(request, note)
    finally:
        connection.close()


async def _flood(proxy: LimitedProxy, phase: list[Seen]) -> None:
    """Request streams one after the other, without pauses."""
    request = proxy.request(KEYS["flood"], wire.request_body("bench-burst", stream=True))
    while True:
        connection = await connect(proxy.url)
        began = time.monotonic()
        try:
            status = await connection.exchange(request, len)
        finally:
            connection.close()
        took = time.monotonic() - began
        (phase[0].accepted if status == 200 else phase[0].refused).append(took)
        if status != 200:
            await asyncio.sleep(RETRY_SECONDS)


async def _ask_now_and_then(proxy: LimitedProxy, phase: list[Seen]) -> None:
    request = proxy.request(KEYS["modest"], wire.request_body("bench-chat", stream=False))
    while True:
        connection = await connect(proxy.url)
        began = time.monotonic()
        try:
            status = await connection.exchange(request, len)
        finally:
            connection.close()
        phase[0].modest.append(time.monotonic() - began)
        phase[0].modest_refused += status != 200
        await asyncio.sleep(PAUSE_SECONDS)


def _ms(seconds: Sequence[float], share: float) -> str:
    return f"{1000 * quantile(seconds, share):.0f}" if seconds else "-"


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.overload", description=__doc__)
    parser.add_argument("--streams", type=int, default=100, help="held (100)")
    parser.add_argument("--flood", type=int, default=100, help="concurrent requests of the flood (100)")
    parser.add_argument("--seconds", type=float, default=10, help="of each phase (10)")
    options = parser.parse_args(arguments)
    cores = prepare_machine()
    print(
        f"{'max_loop_lag':<12} {'phase':<8} {'gap p50, p99 ms':>16} {'accepted':>8} {'refused':>8}", end=" "
    )
    print(f"{'refusal p99 ms':>14} {'modest p50, p99 ms':>18} {'refused':>7} {'busy %':>12}")
    for max_lag in (0.0, MAX_LAG):
        seen = uvloop.run(measure(max_lag, options.streams, options.flood, options.seconds, cores))
        for name, one in zip(("calm", "flooded"), seen, strict=True):
            gaps = f"{_ms(one.gaps, 0.5)}, {_ms(one.gaps, 0.99)}"
            busy = ", ".join(f"{100 * share:.0f}" for share in one.busy)
            modest = f"{_ms(one.modest, 0.5)}, {_ms(one.modest, 0.99)}"
            print(f"{max_lag:<12} {name:<8} {gaps:>16} {len(one.accepted):>8} {len(one.refused):>8}", end=" ")
            print(f"{_ms(one.refused, 0.99):>14} {modest:>18} {one.modest_refused:>7} {busy:>12}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
