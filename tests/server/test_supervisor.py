"""The supervisor of the workers: which workers it replaces, and its exit status."""

import asyncio
import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.server.signals import Signals
from proxy.server.supervisor import STEADY_SECONDS, Supervisor
from tests.credentials.fakes import virtually
from tests.loopback import until
from tests.pace import PATIENCE, paced

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("load")]


async def test_a_worker_that_cannot_start_ends_the_service_with_its_status() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit(7)"]
    supervisor = Supervisor(command, [[], []], "/nowhere", bytes(32), stop_seconds=PATIENCE)
    async with asyncio.timeout(PATIENCE):
        assert await supervisor.run(Signals()) == 7


BEATING = """
import asyncio, os, sys
from pathlib import Path
from proxy.server.supervisor import Lifeline

async def main():
    with Lifeline(int(sys.argv[2])) as lifeline:
        lifeline.read_assignment()
        lifeline.watch(lambda: None, lambda _: None)
        lifeline.report_ready()
        Path(sys.argv[1], str(os.getpid())).touch()
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_worker_that_the_system_has_no_room_for_is_started_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", BEATING, str(tmp_path)]
    supervisor = Supervisor(command, [[], []], "", bytes(32), PATIENCE)
    start = asyncio.create_subprocess_exec
    failures = [OSError(errno.EMFILE, "Too many open files"), OSError(errno.EAGAIN, "no process is left")]

    async def start_later(*args: Any, **options: Any) -> asyncio.subprocess.Process:
        if failures:
            raise failures.pop()
        return await start(*args, **options)

    def pids() -> set[int]:
        return {int(path.name) for path in tmp_path.iterdir()}

    with capture_logs() as log:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            running = group.create_task(supervisor.run(Signals()))
            await until(lambda: len(pids()) == 2)
            monkeypatch.setattr(asyncio, "create_subprocess_exec", start_later)
            killed, serving = pids()
            os.kill(killed, signal.SIGKILL)
            await until(lambda: len(pids()) == 3)
            os.kill(serving, 0)
            os.kill(os.getpid(), signal.SIGTERM)
            await running
    assert [line["event"] for line in log if line["log_level"] == "error"] == [
        "worker_died", "worker_not_started", "worker_not_started",
    ]  # fmt: skip


async def test_a_worker_whose_loop_hangs_is_replaced_and_a_responsive_one_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BEATING, str(tmp_path)]
    hang_seconds = paced(3.0)
    supervisor = Supervisor(command, [[], []], "", bytes(32), PATIENCE, hang_seconds)

    def pids() -> set[int]:
        return {int(path.name) for path in tmp_path.iterdir()}

    with capture_logs() as log:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            running = group.create_task(supervisor.run(Signals()))
            await until(lambda: len(pids()) == 2)
            stopped, _ = pids()
            os.kill(stopped, signal.SIGSTOP)
            await until(lambda: len(pids()) == 3)
            os.kill(os.getpid(), signal.SIGTERM)
            await running
    (hung,) = [line for line in log if line["event"] == "worker_hung"]
    assert hung["pid"] == stopped
    assert hung["silent_s"] >= hang_seconds
    assert [line["status"] for line in log if line["event"] == "worker_died"] == [-signal.SIGKILL]


class Dying(Supervisor):
    """A supervisor whose worker dies after the given seconds, each time that it is started."""

    def __init__(self, *lives: float) -> None:
        super().__init__([], [[]], "", bytes(32), stop_seconds=0.0)
        self.lives = [*lives]
        self.pauses: list[float] = []
        """The seconds between each death and the next start."""
        self.died_at: float | None = None

    async def _work(self, worker: int) -> tuple[int, bool]:
        now = asyncio.get_running_loop().time
        if self.died_at is not None:
            self.pauses.append(now() - self.died_at)
        if self.lives:
            await asyncio.sleep(self.lives.pop(0))
        else:
            self._stopping.set()
        self.died_at = now()
        return 1, True


@virtually
async def test_a_worker_is_replaced_at_once_unless_it_dies_again_soon() -> None:
    supervisor = Dying(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, STEADY_SECONDS + 1.0, 1.0)
    with capture_logs():
        await supervisor._keep(0)
    assert supervisor.pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 5.0, 0.0, 0.5]
