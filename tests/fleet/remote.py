"""Helper processes that are controlled through standard input, with a line of JSON for each call."""

import asyncio
import inspect
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.fleet.starvation import Pulse

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PATIENCE: Final = 60.0
"""Seconds that a helper may need for one call, even on a busy machine."""
_LINE_BYTES_MAX: Final = 1 << 26


class Child:
    """A process in a separate session, with a log.

    Args:
        name: What it is called in messages.
        command: What to run, from the repository's root.
        log: Where its standard error goes; its standard output as well, unless it is `piped`.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, *, piped: bool = False) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._piped = piped
        self.process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self.process is not None and self.process.returncode is None

    async def start(self) -> None:
        """Start the process."""
        pipe = asyncio.subprocess.PIPE
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=pipe if self._piped else asyncio.subprocess.DEVNULL,
                stdout=pipe if self._piped else log,
                stderr=log,
                cwd=REPOSITORY,
                env=_environment(os.environ),
                start_new_session=True,
                limit=_LINE_BYTES_MAX,
            )

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to this process only."""
        if self.is_running:
            assert self.process is not None
            self.process.send_signal(number)

    async def stop(self) -> None:
        """Kill the process and wait for its end."""
        if self.process is None:
            return
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        self.process._transport.close()  # type: ignore[attr-defined]  # or it warns after the loop is gone


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without variables that affect settings or set a web proxy."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("PROXY_") and not name.lower().endswith("_proxy")
    }


class Remote(Child):
    """A helper: a module of this package that runs `serve`.

    Args:
        module: The module's name in this package.
        home: The folder for its log.
        arguments: Of the command line.
    """

    def __init__(self, module: str, home: Path, *arguments: str) -> None:
        command = (sys.executable, "-m", f"tests.fleet.{module}", *arguments)
        super().__init__(module, command, home / f"{module}.log", piped=True)
        self._turn = asyncio.Lock()

    async def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the helper's object, and return its result."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        async with self._turn, asyncio.timeout(PATIENCE):
            self.process.stdin.write(json.dumps([method, arguments]).encode() + b"\n")
            line = await self.process.stdout.readline()
        assert line, f"{self.name} has ended, see {self.log}:\n{self.log.read_text()[-2000:]}"
        return json.loads(line)


@asynccontextmanager
async def running(child: Child) -> AsyncIterator[None]:
    """Run a process during the block."""
    try:
        await child.start()
        yield
    finally:
        await child.stop()


async def serve(target: object) -> None:
    """Run in a helper: call the methods of `target` as the harness asks, until its end of the pipe closes.

    `stalls` is a method of every helper: the times in which its event loop stalled, since the last call.
    """
    async with asyncio.TaskGroup() as group:
        pulse = Pulse()
        beat = group.create_task(pulse.beat())
        await _answer_calls(target, pulse)
        beat.cancel()


async def _answer_calls(target: object, pulse: Pulse) -> None:
    reader = asyncio.StreamReader(limit=_LINE_BYTES_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        method, arguments = json.loads(line)
        if method == "stalls":
            result, pulse.stalls = pulse.stalls, []
        else:
            result = getattr(target, method)(**arguments)
        if inspect.isawaitable(result):
            result = await result
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = PATIENCE) -> None:
    """Wait until a condition holds."""
    try:
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110  the condition asks another process
                await asyncio.sleep(0.01)
    except TimeoutError as error:
        raise AssertionError(f"in {seconds:g} s, not: {what}") from error
