"""Child processes: pinned to their cores, measured through the kernel, and always ended."""

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

STOP_SECONDS: Final = 10.0
TAIL_LINES: Final = 20
REPOSITORY: Final = Path(__file__).resolve().parents[2]
ENVIRONMENTS: Final = REPOSITORY / ".peers"

# The clockid_t of another process's CPU time is its id, complemented, above three bits; 2 there means
# the scheduler's own count.
_CPUCLOCK_SCHED: Final = 2


class BenchError(Exception):
    """The benchmark cannot continue, for the reason in the message."""


class Process:
    """A program in a separate session, so that exactly this program and its children can be killed."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self._log = log
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process id; it must have been started."""
        if self._child is None:
            raise BenchError(f"{self.name} is not running")
        return self._child.pid

    async def start(
        self,
        command: Sequence[str],
        cores: Sequence[int],
        environment: Mapping[str, str] | None = None,
        folder: Path = REPOSITORY,
    ) -> None:
        """Run a command, by default from the repository root, its output in the log."""
        with self._log.open("wb") as log:
            self._child = await asyncio.create_subprocess_exec(
                *("taskset", "--cpu-list", ",".join(map(str, cores)), *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=child_environment(os.environ) | dict(environment or {}),
                start_new_session=True,
            )

    async def stop(self) -> None:
        """Terminate the program, and kill it if it does not end."""
        if self._child is None:
            return
        with suppress(TimeoutError, ProcessLookupError):
            self._child.terminate()
            async with asyncio.timeout(STOP_SECONDS):
                await self._child.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        await self._child.wait()

    def require_alive(self) -> None:
        """Raise BenchError if it has ended."""
        if self._child is None or self._child.returncode is not None:
            code = None if self._child is None else self._child.returncode
            raise self.failure(f"ended with exit code {code}")

    def failure(self, what: str) -> BenchError:
        """Return an error that quotes the end of the log."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return BenchError("\n".join([f"{self.name} {what}; the end of its log:", *lines[-TAIL_LINES:]]))


def installed(path: str) -> str:
    """Return a file of one of the environments that `make` installs for the benchmarks.

    Raises:
        BenchError: It is absent.
    """
    if not (ENVIRONMENTS / path).exists():
        raise BenchError(
            f".peers/{path} is absent: run `make bench` or `make bench-peers`, which installs it"
        )
    return str(ENVIRONMENTS / path)


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without variables that affect settings or set a web proxy."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("PROXY_") and not name.lower().endswith("_proxy")
    }


def children(pid: int) -> list[int]:
    """Return the ids of all descendants of a process."""
    direct = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return direct + [deeper for child in direct for deeper in children(child)]


def cpu_ns(pids: Sequence[int]) -> int:
    """User and system time of these processes so far, all threads.

    /proc/PID/stat holds the same sum, but in ticks of 10 ms: a tenth of what nginx spends in a whole round.
    """
    return sum(time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED) for pid in pids)


def memory_mb(pids: Sequence[int], field: str) -> float:
    """Sum of a size in /proc/PID/status: VmRSS is resident now, VmHWM was at most."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    return total / 1024
