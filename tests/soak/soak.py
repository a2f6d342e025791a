"""Run the soak, and count the faults."""

import asyncio
import json
import os
import random
import signal
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.process import memory_mb
from tests.cli.worker_processes import Workers, connections, two_workers, write_files
from tests.conftest import RECIPE
from tests.loopback import until
from tests.raw_caller import RawCaller, raw_caller
from tests.raw_upstream import Conversation, raw_upstream

SETTLED_SHARE = 0.6
"""The part of a run after which its memory is measured; the worker is killed at half of the run."""
LEAVES = 0.1
"""The share of callers who leave before the end."""
LAST = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


@dataclass
class Soak:
    """One run.

    Args:
        streams: At the same time.
        events: Of each stream.
        pause: Seconds between two events.
        turns: How often each caller opens a stream.
        token_seconds: The lifetime of a token.
    """

    streams: int
    events: int
    pause: float
    turns: int
    token_seconds: float = 20.0
    fetches: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """How streams ended, and the events that were lost, out of order or another caller's."""
    sockets: list[tuple[int, int]] = field(default_factory=list)
    """The memory of the surviving worker, before and after."""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Samples of the surviving worker: seconds since the start, and resident MiB."""

    @property
    def memory_slope(self) -> float:
        """The growth of the memory in MiB per ten minutes, with the streams of the other worker back."""
        settled = self.memory[int(len(self.memory) * SETTLED_SHARE) :]
        return statistics.linear_regression(*zip(*settled, strict=True)).slope * 600

    async def run(self, folder: Path) -> None:
        """Run the soak, and kill one worker in the middle."""
        async with raw_upstream(self._answer) as upstream:
            write_files(folder, upstream.url, RECIPE.format(issuer=upstream.url))
            async with two_workers(folder) as service:
                victim, survivor = service.pids.values()
                before = connections(survivor)
                async with asyncio.TaskGroup() as group:
                    # The service drops lines that nobody reads.
                    reading = group.create_task(_read_log(service))
                    watching = group.create_task(self._watch_memory(survivor))
                    calls = [group.create_task(self._call(service.url, n)) for n in range(self.streams)]
                    await asyncio.sleep(self.pause * self.events * self.turns / 2)
                    os.kill(victim, signal.SIGKILL)
                    await until(lambda: victim not in service.pids.values())
                    await asyncio.wait(calls)
                    reading.cancel()
                    watching.cancel()
                spare = before + 8  # idle connections to the upstream
                await until(lambda: connections(survivor) <= spare)
                self.sockets.append((before, connections(survivor)))

    async def _watch_memory(self, pid: int) -> None:
        began = time.monotonic()
        while True:
            self.memory.append((time.monotonic() - began, memory_mb([pid], "VmRSS")))
            await asyncio.sleep(self.pause)

    async def _answer(self, talk: Conversation) -> None:
        if talk.request.target == b"/token":
            self.fetches += 1
            token = {
                "token": f"token-{self.fetches}",
                "expireTime": (time.time() + self.token_seconds) * 1000,
            }
            await talk.answer(
                json.dumps({"code": 0, "data": token}).encode(), "Content-Type: application/json"
            )
            return
        nonce = json.loads(talk.request.body)["user"]
        await talk.start_stream()
        for number in range(self.events):
            event = {"choices": [], "nonce": nonce, "number": number}
            await talk.chunk(f"data: {json.dumps(event)}\n\n".encode())
            await asyncio.sleep(self.pause)
        await talk.chunk(LAST)
        await talk.end()

    async def _call(self, url: str, number: int) -> None:
        await asyncio.sleep(random.random() * self.pause)
        for turn in range(self.turns):
            nonce = f"{number}-{turn}"
            leaves_after = random.randrange(self.events) if random.random() < LEAVES else None
            try:
                async with raw_caller(url) as caller:
                    self.counts[await self._read(caller, nonce, leaves_after)] += 1
            except (OSError, asyncio.IncompleteReadError, ValueError):
                self.counts["cut"] += 1

    async def _read(self, caller: RawCaller, nonce: str, leaves_after: int | None) -> str:
        body = json.dumps({"model": "m", "stream": True, "user": nonce, "messages": []}).encode()
        await caller.send("POST", "/v1/chat/completions", "Content-Type: application/json", body=body)
        answer = await caller.answer()
        if answer.status != 200:
            return f"status {answer.status}"
        expected = 0
        while chunk := await caller.chunk():
            for block in chunk.split(b"\n\n"):
                if not block.startswith(b'data: {"choices": [],'):
                    continue
                event = json.loads(block.removeprefix(b"data: "))
                self.counts["foreign"] += event["nonce"] != nonce
                self.counts["out of order"] += event["number"] != expected
                expected += 1
            if b"[DONE]" in chunk:
                self.counts["lost"] += self.events - expected
                return "whole"
            if leaves_after is not None and expected > leaves_after:
                return "left"
        return "ended with an error"


async def _read_log(service: Workers) -> None:
    assert service.process.stdout is not None
    while line := await service.process.stdout.readline():
        service.log.append(json.loads(line))
