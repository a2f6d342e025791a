"""The supervisor passes one configuration to all workers, and closes the port of one that cannot start."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.cli.server import open_slots
from proxy.server import supervisor
from proxy.server.signals import Signals
from proxy.server.supervisor import Supervisor
from tests.loopback import until
from tests.pace import PATIENCE, paced

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("load")]

WORKER = """
import asyncio, os, socket, sys
from pathlib import Path
from proxy.server.supervisor import Lifeline

async def main():
    folder = Path(sys.argv[1])
    with Lifeline(int(sys.argv[2])) as lifeline:
        assignment, configuration = lifeline.read_assignment()
        if (folder / f"fails-{assignment.worker}").exists():
            sys.exit(3)
        state = [configuration.decode()]

        def take(offer):
            if (folder / f"dies-{assignment.worker}").exists():
                os._exit(9)
            if (folder / f"hangs-{assignment.worker}").exists():
                return
            succeeds = not (folder / f"rejects-{assignment.worker}").exists()
            if succeeds:
                state[0] = offer.decode()
            lifeline.report_reload(succeeded=succeeds)

        async def answer(reader, writer):
            writer.write(f"{assignment.worker} {state[0]}\\n".encode())
            writer.close()

        listeners = [socket.socket(fileno=descriptor) for descriptor in assignment.descriptors]
        servers = [await asyncio.start_server(answer, sock=listener) for listener in listeners]
        lifeline.watch(lambda: os._exit(0), take)
        lifeline.report_ready()
        await asyncio.Event().wait()

asyncio.run(main())
"""
"""Answers each connection with its number and its configuration."""
CALLS = 30


@dataclass
class Running:
    """A supervisor with two workers."""

    supervisor: Supervisor
    task: asyncio.Task[int]
    port: int
    folder: Path
    log: list[Any]

    def count(self, event: str, **fields: object) -> int:
        """Count lines of the log."""
        wanted = {"event": event, **fields}
        return sum(wanted.items() <= line.items() for line in self.log)

    async def call(self) -> tuple[int, str]:
        """Return the number and the configuration of the worker that answers."""
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                worker, configuration = (await reader.readline()).decode().split()
            finally:
                writer.close()
                await writer.wait_closed()
        return int(worker), configuration

    async def answers(self) -> set[tuple[int, str]]:
        """Return the numbers and the configurations of the workers that answer."""
        return {await self.call() for _ in range(CALLS)}

    def kill(self, number: int) -> None:
        """Kill a worker."""
        pids = {line["worker"]: line["pid"] for line in self.log if line["event"] == "worker_ready"}
        os.kill(pids[number], signal.SIGKILL)

    async def replaced(self) -> None:
        """Kill worker 0, and wait until its successor is ready."""
        ready = self.count("worker_ready")
        self.kill(0)
        await until(lambda: self.count("worker_ready") > ready)


@asynccontextmanager
async def two_workers(folder: Path) -> AsyncIterator[Running]:
    """Supervise two workers."""
    slots = open_slots(["127.0.0.1:0"], 64, 2)
    command = [sys.executable, "-c", WORKER, str(folder)]
    service = Supervisor(command, slots, "", bytes(32), PATIENCE, configuration=b"first")
    with capture_logs() as log:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(service.run(Signals()))
            running = Running(service, task, slots[0][0].getsockname()[1], folder, log)
            await until(lambda: running.count("worker_ready") == 2)
            try:
                yield running
            finally:
                if not task.done():
                    os.kill(os.getpid(), signal.SIGTERM)


async def test_a_change_that_workers_accept_is_what_a_successor_starts_with(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as running:
        assert await running.answers() == {(0, "first"), (1, "first")}
        assert await running.supervisor.offer(b"second", b"second")
        assert await running.answers() == {(0, "second"), (1, "second")}
        await running.replaced()
        assert await running.answers() == {(0, "second"), (1, "second")}


async def test_a_change_that_workers_reject_reaches_no_successor(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as running:
        for worker in range(2):
            (tmp_path / f"rejects-{worker}").touch()
        assert not await running.supervisor.offer(b"second", b"second")
        await running.replaced()
        assert await running.answers() == {(0, "first"), (1, "first")}


async def test_a_change_by_which_workers_die_reaches_no_successor(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as running:
        for worker in range(2):
            (tmp_path / f"dies-{worker}").touch()
        assert not await running.supervisor.offer(b"second", b"second")
        await until(lambda: running.count("worker_ready") == 4)
        assert await running.answers() == {(0, "first"), (1, "first")}


async def test_a_worker_that_does_not_answer_an_offer_delays_it_for_a_limited_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "OFFER_SECONDS", paced(1.0))
    async with two_workers(tmp_path) as running:
        (tmp_path / "hangs-0").touch()
        async with asyncio.timeout(PATIENCE):
            assert await running.supervisor.offer(b"second", b"second")
        assert running.count("worker_did_not_reload") == 1
        assert await running.answers() == {(0, "first"), (1, "second")}


async def test_a_worker_that_starts_during_an_offer_gets_it_too(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as running:
        running.kill(0)
        await until(lambda: running.count("worker_died") == 1)
        assert await running.supervisor.offer(b"second", b"second")
        await until(lambda: running.count("worker_ready") == 3)
        assert await running.answers() == {(0, "second"), (1, "second")}


async def test_connections_go_to_the_other_workers_while_a_successor_cannot_start(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as running:
        (tmp_path / "fails-0").touch()
        running.kill(0)
        for failures in (1, 2):
            await until(lambda: running.count("worker_died", ready=False) >= failures)  # noqa: B023
            assert await running.answers() == {(1, "first")}
        (tmp_path / "fails-0").unlink()
        await until(lambda: running.count("worker_ready") == 3)
        assert await running.answers() == {(0, "first"), (1, "first")}


async def test_the_service_ends_when_no_worker_is_left_that_can_start(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as running:
        for worker in range(2):
            (tmp_path / f"fails-{worker}").touch()
        running.kill(0)
        running.kill(1)
        async with asyncio.timeout(PATIENCE):
            assert await running.task == 1  # 3 could mean that no restart helps
        assert running.count("workers_cannot_start", failing=[0, 1]) == 1
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", running.port)) != 0
