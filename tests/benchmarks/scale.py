"""How CPU and memory grow with open streams, for one worker and two: `python -m tests.benchmarks.scale`.

Every stream gets an event a second, and all of them run for a while before the measurement. A single worker
has one core to itself; two workers use both cores, and share one of them with the load and the upstream.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import uvloop

from tests.benchmarks.__main__ import check_load, prepare_machine
from tests.benchmarks.events import EventReader
from tests.benchmarks.load import MalformedResponseError, connect
from tests.benchmarks.pages import FOLDER, write_pages
from tests.benchmarks.process import BenchError, cpu_ns, memory_mb
from tests.benchmarks.report import Curve, Point, begin_report
from tests.benchmarks.rounds import Tally, quantile
from tests.benchmarks.scenarios import stream_request
from tests.benchmarks.systems import Proxy, TwoWorkers
from tests.benchmarks.targets import Gateway, Target

STREAMS: Final = (0, 250, 500, 1000, 2000, 3000, 5000)
INTERVAL_MS: Final = 1000
MEASURED_SECONDS: Final = 10.0
OPENED_PER_SECOND: Final = 200
SPARE_EVENTS: Final = 10
"""Additional seconds, so that no stream ends during the measurement."""
SETTLE_SECONDS: Final = 2.0


class OneWorker(Proxy):
    """The service with limits that allow all streams."""

    def environment(self) -> dict[str, str]:
        """Raise limits that are too low."""
        return {"PROXY__UPSTREAMS__CHAT__MAX_CONNECTIONS": str(2 * STREAMS[-1])}


class SeveralWorkers(OneWorker, TwoWorkers):
    """The service in two processes."""


FORMS: Final[dict[int, type[Proxy]]] = {1: OneWorker, 2: SeveralWorkers}


async def measure(target: Target, workers: int, streams: int) -> Point:
    """Open streams at a steady rate, wait until all run, and measure for some seconds."""
    ramp = streams / OPENED_PER_SECOND
    events = round(ramp + SETTLE_SECONDS + MEASURED_SECONDS) + SPARE_EVENTS
    tally, began = Tally(), asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        starts = [began + number / OPENED_PER_SECOND for number in range(streams)]
        running = [group.create_task(_stream(target, start, events, tally)) for start in starts]
        await asyncio.sleep(ramp + SETTLE_SECONDS)
        pids = target.pids()
        tally.latencies_ms.clear()
        tally.gaps_ms.clear()
        spent, started = cpu_ns(pids), time.monotonic_ns()
        await asyncio.sleep(MEASURED_SECONDS)
        share = (cpu_ns(pids) - spent) / (time.monotonic_ns() - started)
        memory = memory_mb(pids, "VmRSS")
        lags, gaps = [*tally.latencies_ms] or [0.0], [*tally.gaps_ms] or [0.0]
        tally.failures["ended"] += sum(task.done() for task in running)
        for task in running:
            task.cancel()
    target.require_alive()
    if tally.failures.total():
        print(+tally.failures, file=sys.stderr)
    return Point(
        workers,
        streams,
        cpu_percent=_rounded(100 * share),
        memory_mb=_rounded(memory),
        lag_p99_ms=_rounded(quantile(lags, 0.99)),
        gap_p99_ms=_rounded(quantile(gaps, 0.99)),
        faults=tally.failures.total(),
    )


async def _stream(target: Target, start: float, events: int, tally: Tally) -> None:
    await asyncio.sleep(start - asyncio.get_running_loop().time())
    nonce, request = stream_request(target, events, INTERVAL_MS)
    try:
        connection = await connect(target.url)
        with closing(connection):
            status = await connection.exchange(request, EventReader(nonce, events, tally).feed)
        tally.failures[f"status {status}"] += status != 200
    except (OSError, MalformedResponseError) as error:
        tally.failures[type(error).__name__] += 1


def _rounded(figure: float) -> float:
    return float(f"{figure:.3g}")


async def climb(streams: Sequence[int], cores: Sequence[int]) -> Curve:
    """Measure each form at each number of streams, with fresh processes for each form."""
    about = begin_report(1, cores, [])
    points = []
    with TemporaryDirectory(prefix="bench-scale-") as folder:
        gateway = Gateway(Path(folder) / "upstream", 0)
        try:
            await gateway.start(cores[1])
            for workers, form in FORMS.items():
                target = form(Path(folder) / form.name, gateway.port)
                try:
                    await target.start(*cores[:workers])
                    for number in streams:
                        point = await measure(target, workers, number)
                        print(point, file=sys.stderr)
                        points.append(point)
                finally:
                    await target.stop()
        finally:
            await gateway.stop()
    return Curve(about.date, about.machine, points)


def main(arguments: Sequence[str]) -> int:
    """Print the points; exit 1 if an event was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=STREAMS, metavar="N")
    parser.add_argument("--keep", action="store_true", help="keep the run in docs/performance/")
    parser.add_argument(
        "--busy", action="store_true", help="keep the run even if other programs use the machine's cores"
    )
    options = parser.parse_args(arguments)
    try:
        check_load(options, os.getloadavg()[0], os.cpu_count() or 1)
        curve = uvloop.run(climb(options.streams, prepare_machine()))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    if options.keep:
        curve.save(FOLDER / "scale.json")
        write_pages()
    return int(any(point.faults for point in curve.points))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
