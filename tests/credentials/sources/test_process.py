"""Commands that run once, on both event loops, and leave no process behind."""

import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proxy.credentials import RefreshPolicy
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.exec import ExecTokenSource
from proxy.credentials.sources.process import CommandResult, run_command
from proxy.errors import TokenUnavailable
from tests.credentials.fakes import local_machine
from tests.credentials.sources.sections import command
from tests.loopback import until
from tests.pace import PATIENCE, paced

Run = Callable[[Coroutine[Any, Any, None]], None]

HELD = "exec 3> held; echo up >&3;"
"""The beginning of a script whose processes keep the pipe of a `Witness` open."""


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine on each kind of loop; an unclosed resource warns before the test ends."""

    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param, debug=True) as runner:
            runner.run(main)
        gc.collect()

    return run


class Witness:
    """A named pipe `held`, which shows when processes have opened it, and when all of them have ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.mkfifo(folder / "held")
        self._pipe = os.open(folder / "held", os.O_RDONLY | os.O_NONBLOCK)
        self._heard = b""

    def is_held(self) -> bool:
        try:
            heard = os.read(self._pipe, 100)
        except BlockingIOError:
            return True
        self._heard += heard
        return bool(heard)

    async def appears(self) -> None:
        await until(lambda: self.is_held() and b"up" in self._heard)

    def heard(self) -> bytes:
        """Return what processes have written into the pipe so far."""
        self.is_held()
        return self._heard

    async def is_gone(self) -> None:
        await until(lambda: not self.is_held())

    def close(self) -> None:
        os.close(self._pipe)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    witness = Witness(tmp_path)
    yield witness
    witness.close()


async def shell(script: str, timeout: float = PATIENCE, folder: Path = Path("/")) -> CommandResult:
    path = {"PATH": os.environ["PATH"]}
    return await run_command(["/bin/sh", "-c", script], environment=path, folder=folder, timeout=timeout)


def test_a_command_ends_with_its_output_and_status(run: Run) -> None:
    async def main() -> None:
        assert await shell("echo out; echo words >&2") == CommandResult(0, b"out\n", 6)
        assert await shell("exit 7") == CommandResult(7, b"", 0)
        assert await shell("kill -TERM $$") == CommandResult(-15, b"", 0)
        ended = await run_command(["/usr/bin/env"], environment={}, folder=Path("/"), timeout=PATIENCE)
        assert ended == CommandResult(0, b"", 0)

    run(main())


@pytest.mark.parametrize(
    "script",
    [
        f"{HELD} sleep 100",
        f"{HELD} sleep 100 & sleep 100 & wait",  # grandchildren that keep the output open
        f"trap '' TERM INT HUP; {HELD} while :; do sleep 100; done",
        f"{HELD} exec >&- 2>&-; sleep 100",  # the pipes are closed, but the process continues
    ],
)
def test_a_timeout_kills_the_process_group(run: Run, witness: Witness, script: str) -> None:
    async def main() -> None:
        with pytest.raises(TokenFetchError) as failure:
            await shell(script, timeout=0.15, folder=witness.folder)
        assert failure.value.reason.startswith("the command did not end in time; ")
        assert not failure.value.permanent
        await witness.is_gone()

    run(main())


def test_a_cancellation_kills_the_process_group(run: Run, witness: Witness) -> None:
    async def main() -> None:
        running = asyncio.get_running_loop().create_task(
            shell(f"{HELD} sleep 100 & sleep 100", folder=witness.folder)
        )
        await witness.appears()
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()
        await witness.is_gone()

    run(main())


@pytest.mark.parametrize("again", [False, True])
def test_a_cancellation_at_any_step_leaves_no_process(run: Run, witness: Witness, *, again: bool) -> None:
    async def main() -> None:
        for steps in range(16):
            running = asyncio.get_running_loop().create_task(
                shell(f"{HELD} sleep 100 & sleep 100", folder=witness.folder)
            )
            for _ in range(steps):
                await asyncio.sleep(0)
            running.cancel()
            if again:
                await asyncio.sleep(0)
                running.cancel()
            await asyncio.wait({running})
            assert running.cancelled()
        await witness.is_gone()
        # After a second cancellation, the call does not wait for the end.
        await until(lambda: len(asyncio.all_tasks()) == 1)

    run(main())


def test_the_flights_own_clock_and_its_close_kill_the_process_group(run: Run, witness: Witness) -> None:
    section = command(
        *("/bin/sh", "-c", f"{HELD} sleep 100 & sleep 100"), cwd=witness.folder, env=dict(os.environ)
    )

    async def main() -> None:
        hasty = local_machine(ExecTokenSource(section), policy=RefreshPolicy(fetch_timeout=0.15))
        with pytest.raises(TokenUnavailable):
            await hasty.get()
        await witness.is_gone()
        await hasty.close()
        closing = local_machine(ExecTokenSource(section))
        closing.prefetch()
        await witness.appears()
        await closing.close()
        await witness.is_gone()

    run(main())


def test_a_command_ends_with_its_first_process(run: Run, witness: Witness) -> None:
    async def main() -> None:
        before = time.monotonic()
        ended = await shell(f"{HELD} sleep 100 & echo s3cret", folder=witness.folder)
        assert ended == CommandResult(0, b"s3cret\n", 0)
        await witness.is_gone()
        assert time.monotonic() - before < paced(5.0)

    run(main())


def test_a_descendant_in_another_session_delays_nothing(run: Run, witness: Witness) -> None:
    # It waits on the second pipe until the test releases it.
    os.mkfifo(witness.folder / "leave")

    async def main() -> None:
        escape = 'setsid sh -c "echo up >&3; read x < leave" & read started < started; echo s3cret'
        os.mkfifo(witness.folder / "started")
        script = f"exec 3> held; {escape.replace('echo up >&3', 'echo up >&3; echo > started')}"
        ended = await shell(script, folder=witness.folder)
        assert ended == CommandResult(0, b"s3cret\n", 0)
        assert witness.is_held()
        (witness.folder / "leave").write_text("now\n")
        await witness.is_gone()

    run(main())


@pytest.mark.parametrize("script", ["cat /dev/zero", "cat /dev/zero >&2", "cat /dev/zero & cat /dev/zero"])
def test_a_command_that_writes_without_end_is_stopped(run: Run, witness: Witness, script: str) -> None:
    async def main() -> None:
        with pytest.raises(TokenFetchError) as failure:
            await shell(f"{HELD} {script}", folder=witness.folder)
        assert failure.value.reason.startswith("the command printed too much; ")
        await witness.is_gone()

    run(main())


def test_diagnostics_never_block_a_command_and_an_output_may_be_as_large_as_the_cap(
    run: Run,
) -> None:
    async def main() -> None:
        ended = await shell("head -c 5000000 /dev/zero >&2; head -c 1048576 /dev/zero")
        assert (ended.status, len(ended.output), ended.error_bytes) == (0, 1048576, 5000000)
        with pytest.raises(TokenFetchError):
            await shell("head -c 1048577 /dev/zero")

    run(main())


def test_a_command_that_cannot_be_started_leaves_nothing(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        for _ in range(3):
            with pytest.raises(TokenFetchError) as failure:
                await run_command([str(tmp_path / "no")], environment={}, folder=tmp_path, timeout=1.0)
            assert failure.value.reason.lower() == (
                "the command could not be started: no such file or directory"
            )

    run(main())


AS_INIT = """
import asyncio, ctypes, os, sys
from pathlib import Path
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.process import run_command

PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

async def main():
    for _ in range(3):
        try:
            script = "sleep 100 & (sleep 100 & sleep 100) & sleep 100"
            await run_command(["/bin/sh", "-c", script], environment=None, folder=None, timeout=0.3)
        except TokenFetchError:
            pass

asyncio.run(main())
print(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux lets a process inherit the children of others"
)
async def test_killed_descendants_of_an_init_process_are_collected() -> None:
    ended = await run_command(
        [sys.executable, "-c", AS_INIT], environment=None, folder=None, timeout=PATIENCE
    )
    assert (ended.status, ended.output) == (0, b"[]\n")
