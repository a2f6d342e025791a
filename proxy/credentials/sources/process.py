"""Run a command once, without a shell: what it writes up to a cap, and nothing of it left when it is over."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.credentials.sources import TokenFetchError

OUTPUT_BYTES_MAX: Final = 1 << 20
ERROR_BYTES_MAX: Final = 64 << 20
"""Diagnostics are thrown away as they come; whoever writes so many never ends."""
GRACE_SECONDS: Final = 0.5
"""What a killed process may take to be gone, and a descendant that left the group to close its pipe."""
_OUTPUT: Final = 1  # file descriptor


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended by itself."""

    status: int
    """Exit status; below 0 the signal that killed it."""
    output: bytes
    error_bytes: int
    """How much it wrote to its standard error."""


async def run_command(
    command: Sequence[str], *, environment: Mapping[str, str], folder: Path, timeout: float
) -> Ended:
    """Run it in a session of its own, and kill whatever is left of its process group: on every way out.

    The command is over when its first process has exited, even where a descendant holds the pipe open.

    Args:
        command: The program, absolute or on PATH, and its arguments.
        environment: All of its environment variables.
        folder: Where it starts.
        timeout: Seconds until it is killed.

    Raises:
        TokenFetchError: it could not be started, did not end in time, or wrote too much.
    """
    child = _Child()
    try:
        async with asyncio.timeout(timeout):
            await child.start(command, environment, folder)
            await child.finished
    except TimeoutError as error:
        raise TokenFetchError(
            "the command did not end in time; see what it waits for, or raise timeout"
        ) from error
    except OSError as error:  # its message may hold arguments
        raise TokenFetchError(f"the command could not be started: {error.strerror}") from None
    finally:
        # Shielded: a second cancellation leaves at once, and the end goes on without us.
        await asyncio.shield(child.end())
    if child.wrote_too_much:
        raise TokenFetchError("the command wrote too much; it must print the token and little else")
    return child.result()


class _Child(asyncio.SubprocessProtocol):
    """Listens to one process.

    A protocol instead of streams: it is told of the exit even while a pipe is held open, and what nobody
    wants never fills a buffer at which the process would stop.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = loop.create_future()
        """The first process has exited, or wrote more than is taken in."""
        self.wrote_too_much = False
        self._started: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.SubprocessTransport | None = None
        self._output = bytearray()
        self._error_bytes = 0

    async def start(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        """Start the process.

        Shielded: who is cancelled between the fork and the news of it would leave a group without a name.
        """
        await asyncio.shield(self._spawn(command, environment, folder))

    async def _spawn(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        try:
            self._transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: self,
                *command,
                env=environment,
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        finally:
            self._started.set_result(None)

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        """Keep the output, and only count the diagnostics: they may hold anything."""
        if self.wrote_too_much:
            return
        if fd == _OUTPUT and isinstance(data, bytes):
            self._output += data
        else:
            self._error_bytes += len(data)
        if len(self._output) > OUTPUT_BYTES_MAX or self._error_bytes > ERROR_BYTES_MAX:
            self.wrote_too_much = True
            self._output.clear()
            self._finish()

    def process_exited(self) -> None:
        """The first process has exited; its pipes may still hold something."""
        self._finish()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        """It has exited, and every pipe is at its end."""
        self._gone.set_result(None)

    def _finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)

    async def end(self) -> None:
        """Kill what is left of the group, and see it off; all that was written before has been read then."""
        await asyncio.wait({self._started})
        if self._transport is None:
            return
        # The group's id is that of its first process, which began a session.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._transport.get_pid(), signal.SIGKILL)
        await asyncio.wait({self._gone}, timeout=GRACE_SECONDS)
        self._transport.close()
        await asyncio.wait({self._gone}, timeout=GRACE_SECONDS)

    def result(self) -> Ended:
        """What came of it."""
        status = None if self._transport is None else self._transport.get_returncode()
        if status is None:
            raise TokenFetchError("the command ended in an unknown way")
        return Ended(status, bytes(self._output), self._error_bytes)
