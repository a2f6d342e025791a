"""Run a command without a shell, limit its output, and leave no process of it behind."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import msgspec

from proxy.credentials.sources import TokenFetchError

OUTPUT_BYTES_MAX: Final = 1 << 20
ERROR_BYTES_MAX: Final = 64 << 20
"""Diagnostics are discarded. A command that prints this many will not finish by itself."""
GRACE_SECONDS: Final = 0.5
"""How long to wait for a killed process to end, and for a descendant outside the group to close its pipe."""
REAP_SECONDS: Final = 0.01
"""How often to look whether a killed descendant has ended."""
_INPUT: Final = 0  # file descriptor
_OUTPUT: Final = 1


class CommandResult(msgspec.Struct, frozen=True):
    """The result of a command."""

    status: int
    """The exit status; negative if a signal killed the command."""
    output: bytes
    error_bytes: int
    """The number of bytes on its standard error."""


async def run_command(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None,
    folder: Path | None,
    timeout: float,
    given: bytes = b"",
    name: str = "the command",
) -> CommandResult:
    """Run a command in a new session, and kill its process group in any case.

    The command has ended when its first process has exited, even if a descendant keeps a pipe open.

    Args:
        command: The program, absolute or on PATH, and its arguments.
        environment: All of its environment variables; None if it inherits those of this process.
        folder: The working directory; None for that of this process.
        timeout: The number of seconds after which it is killed.
        given: Its standard input.
        name: What to call it in errors.

    Raises:
        TokenFetchError: The command could not be started, did not end in time, or printed too much.
    """
    child = _Child()
    try:
        async with asyncio.timeout(timeout):
            await child.start(command, environment, folder, given)
            await child.finished
    except TimeoutError as error:
        raise TokenFetchError(
            f"{name} did not end in time; find out what it waits for, or increase timeout"
        ) from error
    except OSError as error:  # its message may contain arguments
        raise TokenFetchError(f"{name} could not be started: {error.strerror}") from None
    finally:
        # Shielded, so that a second cancellation does not stop the clean-up.
        await asyncio.shield(child.end())
    if child.printed_too_much:
        raise TokenFetchError(f"{name} printed too much; it must print the token and little else")
    return child.result(name)


class _Child(asyncio.SubprocessProtocol):
    """Receives the events of one process.

    Unlike asyncio's streams, a protocol learns of the exit even if a pipe stays open, and no unread buffer
    can block the process.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = loop.create_future()
        """Resolved when the first process has exited, or has printed too much."""
        self.printed_too_much = False
        self._started: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.SubprocessTransport | None = None
        self._output = bytearray()
        self._error_bytes = 0

    async def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None,
        folder: Path | None,
        given: bytes,
    ) -> None:
        """Start the process. Shielded, because a cancellation after the fork would lose the process id."""
        await asyncio.shield(self._spawn(command, environment, folder, given))

    async def _spawn(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None,
        folder: Path | None,
        given: bytes,
    ) -> None:
        try:
            self._transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: self,
                *command,
                env=environment,
                cwd=folder,
                stdin=asyncio.subprocess.PIPE if given else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            if given:
                pipe = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(_INPUT))
                pipe.write(given)
                pipe.close()  # once everything is written
        finally:
            self._started.set_result(None)

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        """Keep the output, and only count the diagnostics, which may contain secrets."""
        if self.printed_too_much:
            return
        if fd == _OUTPUT and isinstance(data, bytes):
            self._output += data
        else:
            self._error_bytes += len(data)
        if len(self._output) > OUTPUT_BYTES_MAX or self._error_bytes > ERROR_BYTES_MAX:
            self.printed_too_much = True
            self._output.clear()
            self._finish()

    def process_exited(self) -> None:
        """Note that the first process has exited; its pipes may still contain data."""
        self._finish()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        """Note that the process has exited and all pipes are closed."""
        self._gone.set_result(None)

    def _finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)

    async def end(self) -> None:
        """Kill the process group, and wait until all output has been read."""
        await asyncio.wait({self._started})
        if self._transport is None:
            return
        group = self._transport.get_pid()  # The first process started a session.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        await asyncio.wait({self._gone}, timeout=GRACE_SECONDS)
        self._transport.close()
        await asyncio.wait({self._gone}, timeout=GRACE_SECONDS)
        if self._gone.done():
            await _reap(group)

    def result(self, name: str) -> CommandResult:
        """Return the exit status and the output.

        Args:
            name: What to call the command in errors.

        Raises:
            TokenFetchError: There is no exit status.
        """
        status = None if self._transport is None else self._transport.get_returncode()
        if status is None:
            raise TokenFetchError(f"{name} ended in an unknown way")
        return CommandResult(status, bytes(self._output), self._error_bytes)


async def _reap(group: int) -> None:
    """Collect the killed descendants: in a container they become children of this process if it is init."""
    with contextlib.suppress(ChildProcessError, TimeoutError):  # There is none, usually from the beginning.
        async with asyncio.timeout(GRACE_SECONDS):
            while True:
                ended, _ = os.waitpid(-group, os.WNOHANG)  # noqa: ASYNC222 - it returns at once
                if not ended:
                    await asyncio.sleep(REAP_SECONDS)
