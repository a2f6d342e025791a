"""The worker processes of one service: started, replaced when they die or hang, signalled and ended together.

The supervisor keeps every listening socket open. The connections that arrive for a worker that has died wait
there for its successor, and none is lost.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Self

from proxy.errors import SettingsError
from proxy.server.signals import HANGUP, STOP, Signals
from proxy.telemetry import get_logger

STEADY_SECONDS: Final = 10.0
"""A worker that died after more than this is replaced at once."""
PAUSE_SECONDS: Final = 0.5
PAUSE_SECONDS_MAX: Final = 5.0
ASSIGNMENT_SECONDS: Final = 30.0
BEAT_SECONDS: Final = 1.0
"""How often the event loop of a worker shows that it runs."""
HANG_SECONDS: Final = 30.0
"""A worker without a beat for this long is killed and replaced."""
START_SECONDS: Final = 120.0
"""How long a worker may take until its first beat: its imports come before its event loop."""
_HANDLES_SIGNALS: Final = b"handles signals\n"
_READY: Final = b"ready\n"
_BEAT: Final = b"\n"
_IGNORING: Final = ("/bin/sh", "-c", 'trap "" INT HUP; exec "$@"', "sh")
"""Starts a command that ignores SIGINT and SIGHUP until it handles them.

A terminal sends them to every process, and a worker that still imports would end with a traceback.
"""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker learns from its supervisor when it starts."""

    worker: int
    workers: int
    descriptors: list[int]
    """The descriptors of the sockets on which it accepts connections."""
    folder: str
    """The folder for files that the workers share; nobody else can read it."""
    key: str
    """The key that encrypts those files: 32 bytes in base64, kept only in the memory of the processes."""

    @property
    def sealing_key(self) -> bytes:
        """The key as bytes."""
        return base64.b64decode(self.key)


class Lifeline:
    """A worker's connection to its supervisor. Its end means that the supervisor has died."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def read_assignment(self) -> Assignment:
        """Return what the supervisor assigns.

        Raises:
            SettingsError: Nothing in time: no supervisor has started this process.
        """
        self._socket.settimeout(ASSIGNMENT_SECONDS)
        try:
            line = self._socket.makefile("rb").readline()
            return Assignment(**json.loads(line))
        except (OSError, ValueError, TypeError) as error:
            raise SettingsError("--assignment: is for worker processes only") from error
        finally:
            self._socket.setblocking(False)  # noqa: FBT003 - the name says it

    def report_signal_handling(self) -> None:
        """Let the supervisor know that signals have their handlers."""
        with contextlib.suppress(OSError):
            self._socket.send(_HANDLES_SIGNALS)

    def report_ready(self) -> None:
        """Let the supervisor know that connections are accepted."""
        with contextlib.suppress(OSError):
            self._socket.send(_READY)

    def watch(self, act: Callable[[], None]) -> None:
        """Show that the event loop runs, and call back when the supervisor has died; needs a running loop."""
        loop = asyncio.get_running_loop()
        self._beat(loop)

        def look() -> None:
            try:
                has_ended = not self._socket.recv(1)
            except BlockingIOError:
                return
            except ConnectionError:  # It has died with a heartbeat that it had not read.
                has_ended = True
            if has_ended:
                loop.remove_reader(self._socket)
                act()

        loop.add_reader(self._socket, look)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(OSError):  # The supervisor does not read, or has died.
            self._socket.send(_BEAT)
        loop.call_later(BEAT_SECONDS, self._beat, loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class Supervisor:
    """Keeps one worker process running for each set of sockets.

    Args:
        command: Starts a worker; the number of its lifeline is appended.
        slots: The sockets of each worker.
        folder: See `Assignment`.
        key: See `Assignment`.
        stop_seconds: How long workers may take to end after a signal; then they are killed.
        hang_seconds: How long a worker may be silent.
        kept_open: Descriptors that stay open in each worker until it ends.
    """

    def __init__(
        self,
        command: Sequence[str],
        slots: Sequence[Sequence[socket.socket]],
        folder: str,
        key: bytes,
        stop_seconds: float,
        hang_seconds: float = HANG_SECONDS,
        kept_open: Sequence[int] = (),
    ) -> None:
        self._command = command
        self._slots = slots
        self._folder = folder
        self._key = base64.b64encode(key).decode()
        self._stop_seconds = stop_seconds
        self._hang_seconds = hang_seconds
        self._kept_open = kept_open
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._handling_signals: set[int] = set()
        self._to_reload: set[int] = set()
        """Workers that have to reload as soon as they handle signals."""
        self._stopping = asyncio.Event()
        self._status = 0
        self._log = get_logger("supervisor")

    async def run(self, signals: Signals) -> int:
        """Keep the workers running until a signal ends them all; return the exit status of the service."""
        signals.handle([*STOP, *HANGUP], self._signalled)
        async with asyncio.TaskGroup() as group:
            killing = group.create_task(self._kill_late())
            try:
                await self._keep_all()
            finally:
                killing.cancel()
        self._log.info("stopped", status=self._status)
        return self._status

    async def _keep_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for worker in range(len(self._slots)):
                group.create_task(self._keep(worker))

    def _signalled(self, number: int) -> None:
        if number in STOP:
            self._stopping.set()
            for listener in {*itertools.chain(*self._slots)}:
                listener.close()  # The workers have theirs, and close them when they should.
        if number in HANGUP:
            self._to_reload |= {*range(len(self._slots))} - self._handling_signals
        for worker, process in self._running.items():
            with contextlib.suppress(ProcessLookupError):
                if worker in self._handling_signals:
                    process.send_signal(number)
                elif number in STOP:
                    process.terminate()

    async def _kill_late(self) -> None:
        await self._stopping.wait()
        await asyncio.sleep(self._stop_seconds)
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _keep(self, worker: int) -> None:
        loop = asyncio.get_running_loop()
        pause, starts = 0.0, 0
        while not self._stopping.is_set():
            began, starts = loop.time(), starts + 1
            try:
                status, was_ready = await self._work(worker)
            except OSError as error:  # The others serve, and there may be room for this one later.
                status, was_ready = 1, False
                self._log.error("worker_not_started", worker=worker, reason=str(error))
            else:
                if not self._stopping.is_set():
                    self._log.error("worker_died", worker=worker, status=status, ready=was_ready)
            if self._stopping.is_set():
                if status and was_ready:  # A worker that was not ready yet is killed by the signal.
                    self._status = self._status or 1
                return
            if starts == 1 and not was_ready:
                self._status = status if status > 0 else 1
                self._signalled(signal.SIGTERM)
                return
            steady = was_ready and loop.time() - began > STEADY_SECONDS
            pause = 0.0 if starts == 1 or steady else min(max(2 * pause, PAUSE_SECONDS), PAUSE_SECONDS_MAX)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    async def _work(self, worker: int) -> tuple[int, bool]:
        """Run one worker to its end; return its status, and whether it ever accepted connections.

        Raises:
            OSError: The system has no descriptor, no process or no memory left for it.
        """
        sockets = self._slots[worker]
        ours, theirs = socket.socketpair()
        assignment = Assignment(
            worker, len(self._slots), [listener.fileno() for listener in sockets], self._folder, self._key
        )
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            try:
                process = await asyncio.create_subprocess_exec(
                    *_IGNORING,
                    *self._command,
                    str(theirs.fileno()),
                    pass_fds=[theirs.fileno(), *assignment.descriptors, *self._kept_open],
                )
            except OSError:
                writer.close()
                raise
        self._running[worker] = process
        try:
            if self._stopping.is_set():
                process.terminate()
            writer.write(json.dumps(asdict(assignment)).encode() + b"\n")
            was_ready = await self._monitor(reader, worker, process)
            return await process.wait(), was_ready
        finally:
            del self._running[worker]
            self._handling_signals.discard(worker)
            self._to_reload.discard(worker)
            writer.close()

    async def _monitor(
        self, reader: asyncio.StreamReader, worker: int, process: asyncio.subprocess.Process
    ) -> bool:
        """Read a worker's heartbeats until it ends; kill it if they stop. Return whether it was ever ready.

        Count missed heartbeats instead of elapsed time: if the supervisor itself was paused, the clock would
        blame the worker.
        """
        was_ready, silent, allowed = False, 0.0, START_SECONDS
        while silent < allowed:
            try:
                async with asyncio.timeout(BEAT_SECONDS):
                    line = await reader.readline()
            except TimeoutError:
                silent += BEAT_SECONDS
                continue
            except ConnectionError:
                return was_ready
            if not line:
                return was_ready
            silent, allowed = 0.0, self._hang_seconds
            if line == _HANDLES_SIGNALS:
                self._handling_signals.add(worker)
                allowed = START_SECONDS
                if worker in self._to_reload:
                    with contextlib.suppress(ProcessLookupError):
                        process.send_signal(signal.SIGHUP)
            elif line == _READY:
                was_ready = True
                self._log.info("worker_ready", worker=worker, pid=process.pid)
        self._log.error("worker_hung", worker=worker, pid=process.pid, silent_s=silent)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return was_ready
