"""Run the soak, and count the faults."""

import asyncio
import json
import os
import random
import signal
import statistics
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.benchmarks.process import memory_mb
from tests.cli.worker_processes import Workers, connections, two_workers, write_files
from tests.conftest import RECIPE
from tests.loopback import until
from tests.raw_caller import RawCaller, raw_caller
from tests.redis_server import RedisServer, redis_server
from tests.soak.upstream import SoakUpstream, soak_upstream
from tests.waiting import delay

SETTLED_SHARE: Final = 0.6
"""The part of a run after which its memory is measured; the worker is killed at half of the run."""
LEAVES: Final = 0.1
"""The share of callers who leave before the end."""
SPARE_SOCKETS: Final = 16
"""What an idle worker may keep open: connections to Redis and to the upstreams."""
STEADY: Final = "steady"
RESTARTED: Final = "restarted"
MORE: Final = """
[[routes.models]]
match = "restarted/*"
upstream = "restarted"

[upstreams.restarted]
base_url = "{restarted}/v1"
credential = "corp"

[shared]
redis_url = "{redis}"
encryption_key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
"""
FAULTS: Final = ("lost", "doubled", "reordered", "foreign")


@dataclass
class Soak:
    """One run. Redis restarts at a quarter of it, a worker at half, one of two upstreams at three quarters.

    Args:
        streams: At the same time.
        events: Of each stream.
        pause: Seconds between two events.
        turns: How often each caller opens a stream.
        token_seconds: The lifetime of a token.
        away_seconds: How long Redis and the upstream are away.
    """

    streams: int
    events: int
    pause: float
    turns: int
    token_seconds: float = 20.0
    away_seconds: float = 2.0
    fetches: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Events that were lost, doubled, out of order or of another caller."""
    endings: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How the streams of each upstream ended."""
    sockets: tuple[int, int] = (0, 0)
    """Open sockets of the worker that lived, before and after."""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Samples of the surviving worker: seconds since the start, and resident MiB."""

    @property
    def memory_slope(self) -> float:
        """The growth of the memory in MiB per ten minutes, with the streams of the other worker back."""
        settled = self.memory[int(len(self.memory) * SETTLED_SHARE) :]
        return statistics.linear_regression(*zip(*settled, strict=True)).slope * 600

    @property
    def faults(self) -> list[str]:
        """What must not happen: each fault with its number."""
        found = [f"{name}: {self.counts[name]}" for name in FAULTS if self.counts[name]]
        for (upstream, ending), count in sorted(self.endings.items()):
            of_restart = upstream == RESTARTED and ending in {"ended with an error event", "status 502"}
            if not of_restart and ending not in {"whole", "left", "cut"}:
                found.append(f"{ending}, {upstream} upstream: {count}")
        cut = sum(count for (_, ending), count in self.endings.items() if ending == "cut")
        if cut > self.streams:
            found.append(f"{cut} streams were cut, and the killed worker can have had at most {self.streams}")
        return found

    async def run(self, folder: Path) -> None:
        """Run the soak."""
        async with AsyncExitStack() as stack:
            redis = await stack.enter_async_context(redis_server(folder))
            start = (self.events, self.pause, self.token_seconds)
            steady = await stack.enter_async_context(soak_upstream(*start))
            restarted = await stack.enter_async_context(soak_upstream(*start))
            more = MORE.format(restarted=restarted.url, redis=redis.url)
            write_files(folder, steady.url, RECIPE.format(issuer=steady.url), more=more)
            service = await stack.enter_async_context(two_workers(folder))
            victim, survivor = service.pids.values()
            before = connections(survivor)
            async with asyncio.TaskGroup() as group:
                # The service drops lines that nobody reads.
                reading = group.create_task(_read_log(service))
                watching = group.create_task(self._watch_memory(survivor))
                calls = [group.create_task(self._call(service.url, n)) for n in range(self.streams)]
                await self._disturb(service, victim, redis, restarted)
                await asyncio.wait(calls)
                reading.cancel()
                watching.cancel()
            await until(lambda: connections(survivor) <= before + SPARE_SOCKETS)
            self.sockets = (before, connections(survivor))
            self.fetches = steady.fetches

    async def _disturb(
        self, service: Workers, victim: int, redis: RedisServer, upstream: SoakUpstream
    ) -> None:
        quarter = self.pause * self.events * self.turns / 4
        await delay(quarter)
        await redis.stop()
        await delay(self.away_seconds)
        await redis.start()
        await delay(quarter - self.away_seconds)
        os.kill(victim, signal.SIGKILL)
        await until(lambda: victim not in service.pids.values())
        await delay(quarter)
        await upstream.stop()
        await delay(self.away_seconds)
        await upstream.start()

    async def _watch_memory(self, pid: int) -> None:
        began = time.monotonic()
        while True:
            self.memory.append((time.monotonic() - began, memory_mb([pid], "VmRSS")))
            await delay(self.pause)

    async def _call(self, url: str, number: int) -> None:
        upstream = RESTARTED if number % 2 else STEADY
        await delay(random.random() * self.pause)
        for turn in range(self.turns):
            leaves_after = random.randrange(self.events) if random.random() < LEAVES else None
            try:
                async with raw_caller(url) as caller:
                    ending = await self._read(caller, upstream, f"{number}-{turn}", leaves_after)
            except (OSError, asyncio.IncompleteReadError, ValueError):
                ending = "cut"
            self.endings[upstream, ending] += 1
            if ending.startswith("status"):
                await delay(self.pause)  # as a client does before it tries again

    async def _read(self, caller: RawCaller, upstream: str, nonce: str, leaves_after: int | None) -> str:
        request = {"model": f"{upstream}/m", "stream": True, "user": nonce, "messages": []}
        body = json.dumps(request).encode()
        await caller.send("POST", "/v1/chat/completions", "Content-Type: application/json", body=body)
        answer = await caller.answer()
        if answer.status != 200:
            return f"status {answer.status}"
        numbers: list[int] = []
        ending = "ended without a word"
        try:
            while chunk := await caller.chunk():
                for line in chunk.splitlines():
                    if line.startswith(b'data: {"choices": [],'):
                        event = json.loads(line.removeprefix(b"data: "))
                        self.counts["foreign"] += event["nonce"] != nonce
                        numbers.append(event["number"])
                    elif line.startswith(b'data: {"error"'):
                        ending = "ended with an error event"
                    elif line == b"data: [DONE]":
                        ending = "whole"
                if leaves_after is not None and len(numbers) > leaves_after:
                    return "left"
        finally:
            self._count(numbers, expected=self.events if ending == "whole" else max(numbers, default=-1) + 1)
        return ending

    def _count(self, numbers: list[int], expected: int) -> None:
        self.counts["lost"] += expected - len(set(numbers))
        self.counts["doubled"] += len(numbers) - len(set(numbers))
        self.counts["reordered"] += numbers != sorted(numbers)


async def _read_log(service: Workers) -> None:
    assert service.process.stdout is not None
    while line := await service.process.stdout.readline():
        service.log.append(json.loads(line))
