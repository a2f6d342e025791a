"""How long processes waited for a processor, to distinguish a busy machine from a slow service."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.fleet.measure import Wait

SAMPLE_SECONDS: Final = 0.05
LATE_SECONDS: Final = 0.1
"""A longer delay of a helper's event loop counts as a stall."""


def run_queue_seconds(pid: int) -> float:
    """Seconds that a process's main thread has waited for a processor; 0 where the kernel does not say.

    See the kernel's Documentation/scheduler/sched-stats.rst.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


class Pulse:
    """Records stalls of the event loop on which it runs."""

    def __init__(self) -> None:
        self.stalls: list[tuple[float, float]] = []

    async def beat(self) -> None:
        """Watch the loop until it is cancelled."""
        while True:
            begin = time.monotonic()
            await asyncio.sleep(SAMPLE_SECONDS)
            end = time.monotonic()
            if end - begin > SAMPLE_SECONDS + LATE_SECONDS:
                self.stalls.append((begin, end))


@asynccontextmanager
async def sampled_waits(pids: Mapping[str, int]) -> AsyncIterator[dict[str, list[Wait]]]:
    """Sample how long processes wait while the block runs; the result grows meanwhile.

    Args:
        pids: The processes by name.
    """
    waits: dict[str, list[Wait]] = {name: [] for name in pids}

    async def sample() -> None:
        begin, before = time.monotonic(), {name: run_queue_seconds(pid) for name, pid in pids.items()}
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            end = time.monotonic()
            for name, pid in pids.items():
                waited = run_queue_seconds(pid)
                if waited > before[name]:
                    waits[name].append(Wait(begin, end, waited - before[name]))
                before[name] = waited
            begin = end

    async with asyncio.TaskGroup() as group:
        sampler = group.create_task(sample())
        with contextlib.ExitStack() as stack:
            stack.callback(sampler.cancel)
            yield waits
