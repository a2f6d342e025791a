"""The worker processes of one service: started, replaced when they die or hang, signalled and ended together.

The supervisor keeps every listening socket open. The connections that arrive for a worker that has died wait
there for its successor, and none is lost. If the successor cannot start, its port is closed: the kernel then
gives all connections to the other workers.

All workers serve with one configuration, which the supervisor passes to them. A worker reads no file of it:
what is on the disk may be incomplete, rejected, or not meant to be loaded yet.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import signal
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from proxy.errors import SettingsError
from proxy.server.signals import STOP, Signals
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
OFFER_SECONDS: Final = 60.0
"""How long a worker may take to accept or reject a configuration."""
START_SECONDS: Final = 120.0
"""How long a worker may take until its first beat: its imports come before its event loop."""
_HANDLES_SIGNALS: Final = b"handles signals\n"
_READY: Final = b"ready\n"
_RELOADED: Final = b"reloaded\n"
_NOT_RELOADED: Final = b"not reloaded\n"
_BEAT: Final = b"\n"
_LENGTH: Final = struct.Struct("!I")
"""Precedes each message to a worker."""
_READ_BYTES: Final = 64 * 1024
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
    key: str = field(repr=False)
    """The key that encrypts those files: 32 bytes in base64, kept only in the memory of the processes."""

    @property
    def sealing_key(self) -> bytes:
        """The key as bytes."""
        return base64.b64decode(self.key)


def _framed(message: bytes) -> bytes:
    return _LENGTH.pack(len(message)) + message


class Lifeline:
    """A worker's connection to its supervisor. Its end means that the supervisor has died."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._received = bytearray()

    def read_assignment(self) -> tuple[Assignment, bytes]:
        """Return what the supervisor assigns, and the configuration to start with.

        Raises:
            SettingsError: Nothing in time: no supervisor has started this process.
        """
        self._socket.settimeout(ASSIGNMENT_SECONDS)
        try:
            return Assignment(**json.loads(self._read_message())), self._read_message()
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise SettingsError("--assignment: is for worker processes only") from error
        finally:
            self._socket.setblocking(False)  # noqa: FBT003 - the name says it

    def _read_message(self) -> bytes:
        while (message := next(self._complete_messages(), None)) is None:
            if not (received := self._socket.recv(_READ_BYTES)):
                raise EOFError
            self._received += received
        return message

    def _complete_messages(self) -> Iterator[bytes]:
        """Remove complete messages from what was received."""
        while len(self._received) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            message = bytes(self._received[_LENGTH.size : end])
            del self._received[:end]
            yield message

    def report_signal_handling(self) -> None:
        """Tell the supervisor that the signal handlers are installed."""
        with contextlib.suppress(OSError):
            self._socket.send(_HANDLES_SIGNALS)

    def report_ready(self) -> None:
        """Tell the supervisor that connections are accepted."""
        with contextlib.suppress(OSError):
            self._socket.send(_READY)

    def report_reload(self, *, succeeded: bool) -> None:
        """Tell the supervisor whether this worker serves with its last offer."""
        with contextlib.suppress(OSError):
            self._socket.send(_RELOADED if succeeded else _NOT_RELOADED)

    def watch(self, supervisor_died: Callable[[], None], offered: Callable[[bytes], None]) -> None:
        """Show that the event loop runs; call back for each offer, and when the supervisor has died.

        It needs a running loop. Each offer has to be answered by `report_reload`.
        """
        loop = asyncio.get_running_loop()
        self._beat(loop)

        def receive() -> None:
            try:
                received = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:  # It has died with a heartbeat that it had not read.
                received = b""
            self._received += received
            deliver()
            if not received:
                loop.remove_reader(self._socket)
                supervisor_died()

        def deliver() -> None:
            for message in self._complete_messages():
                offered(message)

        deliver()  # what arrived together with the assignment
        loop.add_reader(self._socket, receive)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(OSError):  # The supervisor does not read, or has died.
            self._socket.send(_BEAT)
        loop.call_later(BEAT_SECONDS, self._beat, loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@dataclass(slots=True, eq=False)
class _Worker:
    """A running worker process.

    Args:
        process: The process.
        writer: The connection to its lifeline.
        configuration: The configuration by which it serves, or which it was last offered.
        handles_signals: Whether it has handlers for signals.
        decision: Whether it serves with what it was offered; None if it ends before.
    """

    process: asyncio.subprocess.Process
    writer: asyncio.StreamWriter
    configuration: bytes = field(repr=False)
    handles_signals: bool = False
    decision: asyncio.Future[bool | None] | None = None

    def offer(self, message: bytes, configuration: bytes) -> asyncio.Future[bool | None]:
        """Send an offer; return the worker's decision."""
        self.configuration = configuration
        self.decision = asyncio.get_running_loop().create_future()
        self.writer.write(_framed(message))
        return self.decision

    def decided(self, accepted: bool | None) -> None:  # noqa: FBT001 - the result of the future
        """Set the decision about the offer, if there is one."""
        if self.decision is not None and not self.decision.done():
            self.decision.set_result(accepted)

    def send_signal(self, number: int) -> None:
        """Send a signal unless the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


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
        configuration: What a worker starts with.
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
        configuration: bytes = b"",
    ) -> None:
        self._command = command
        self._slots = [[*slot] for slot in slots]
        self._addresses = [[(each.family, each.getsockname()) for each in slot] for slot in slots]
        self._folder = folder
        self._key = base64.b64encode(key).decode()
        self._stop_seconds = stop_seconds
        self._hang_seconds = hang_seconds
        self._kept_open = kept_open
        self._configuration = configuration
        self._running: dict[int, _Worker] = {}
        self._failing: set[int] = set()
        """The workers whose last start failed."""
        self._stopping = asyncio.Event()
        self._status = 0
        self._log = get_logger("supervisor")

    async def run(self, signals: Signals) -> int:
        """Keep the workers running until a signal ends them all; return the exit status of the service."""
        signals.handle(STOP, self._signalled)
        try:
            async with asyncio.TaskGroup() as group:
                killing = group.create_task(self._kill_late())
                try:
                    await self._keep_all()
                finally:
                    killing.cancel()
        finally:
            self._close_listeners()
        self._log.info("stopped", status=self._status)
        return self._status

    async def offer(self, message: bytes, configuration: bytes) -> bool:
        """Let the workers change their configuration; return whether new workers start with it from now on.

        They do if a worker has accepted it, or if none runs. A worker that starts meanwhile then gets the
        offer as well, so that no two workers differ.

        Args:
            message: The change, for workers that run.
            configuration: What a worker starts with that needs no such message.
        """
        decisions: list[bool | None] = []
        while (not decisions or any(decisions)) and (
            waiting := [one for one in self._running.values() if one.configuration is not configuration]
        ):
            asked = {one.offer(message, configuration): one for one in waiting}
            _, late = await asyncio.wait(asked, timeout=OFFER_SECONDS)
            for decision in late:
                self._log.error("worker_did_not_reload", pid=asked[decision].process.pid)
            decisions += [None if each in late else each.result() for each in asked]
        accepted = any(decisions) or not decisions
        if accepted:
            self._configuration = configuration
        return accepted

    async def _keep_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for worker in range(len(self._slots)):
                group.create_task(self._keep(worker))

    def _signalled(self, number: int) -> None:
        self._stopping.set()
        self._close_listeners()  # The workers have theirs, and close them when they should.
        for worker in self._running.values():
            # A worker that does not handle signals yet ignores SIGINT.
            worker.send_signal(number if worker.handles_signals else signal.SIGTERM)

    def _close_listeners(self) -> None:
        for listener in {*itertools.chain(*self._slots)}:
            listener.close()

    async def _kill_late(self) -> None:
        await self._stopping.wait()
        await asyncio.sleep(self._stop_seconds)
        for worker in self._running.values():
            worker.send_signal(signal.SIGKILL)

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
            if not was_ready:
                self._failing.add(worker)
                self._stop_listening(worker)
                if starts == 1 or len(self._failing) == len(self._slots):
                    self._give_up(status if starts == 1 else 1)
                    return
            steady = was_ready and loop.time() - began > STEADY_SECONDS
            pause = 0.0 if starts == 1 or steady else min(max(2 * pause, PAUSE_SECONDS), PAUSE_SECONDS_MAX)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    def _give_up(self, status: int) -> None:
        """End the service: it cannot start, or no worker is left that can.

        Args:
            status: That of a first start, which a service manager may take for wrong settings; 1 later, so
                that it starts the service again.
        """
        self._log.error("workers_cannot_start", failing=sorted(self._failing))
        self._status = status if status > 0 else 1
        self._signalled(signal.SIGTERM)

    # --- the sockets

    def _stop_listening(self, worker: int) -> None:
        """Close the sockets on which only this worker listens; connections that wait there are reset."""
        shared = {*itertools.chain(*(slot for other, slot in enumerate(self._slots) if other != worker))}
        for listener in self._slots[worker]:
            if listener not in shared:
                listener.close()

    def _open_again(self, worker: int) -> list[socket.socket]:
        """Return a worker's sockets; closed ones are bound again, and the worker itself listens on them.

        Raises:
            OSError: An address cannot be bound.
        """
        slot = self._slots[worker]
        for index, address in enumerate(self._addresses[worker]):
            if slot[index].fileno() < 0:
                slot[index] = _bound(*address)
        return slot

    # --- the processes

    async def _work(self, worker: int) -> tuple[int, bool]:
        """Run one worker to its end; return its status, and whether it ever accepted connections.

        Raises:
            OSError: The system has no descriptor, no process or no memory left for it.
        """
        descriptors = [listener.fileno() for listener in self._open_again(worker)]
        ours, theirs = socket.socketpair()
        assignment = Assignment(worker, len(self._slots), descriptors, self._folder, self._key)
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            try:
                process = await asyncio.create_subprocess_exec(
                    *_IGNORING,
                    *self._command,
                    str(theirs.fileno()),
                    pass_fds=[theirs.fileno(), *descriptors, *self._kept_open],
                )
            except OSError:
                writer.close()
                raise
        running = self._running[worker] = _Worker(process, writer, self._configuration)
        try:
            if self._stopping.is_set():
                running.send_signal(signal.SIGTERM)
            writer.write(_framed(json.dumps(asdict(assignment)).encode()) + _framed(running.configuration))
            was_ready = await self._monitor(reader, worker, running)
            return await process.wait(), was_ready
        finally:
            del self._running[worker]
            running.decided(None)
            writer.close()

    async def _monitor(self, reader: asyncio.StreamReader, worker: int, running: _Worker) -> bool:
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
                running.handles_signals = True
                allowed = START_SECONDS
            elif line == _READY:
                was_ready = True
                self._failing.discard(worker)
                self._log.info("worker_ready", worker=worker, pid=running.process.pid)
            elif line in {_RELOADED, _NOT_RELOADED}:
                running.decided(line == _RELOADED)
        self._log.error("worker_hung", worker=worker, pid=running.process.pid, silent_s=silent)
        running.send_signal(signal.SIGKILL)
        return was_ready


def _bound(family: int, address: Any) -> socket.socket:
    """Return a socket that is bound beside those of other workers, but does not listen.

    Raises:
        OSError: The address cannot be bound.
    """
    new = socket.socket(family, socket.SOCK_STREAM)
    try:
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        new.bind(address)
        new.setblocking(False)  # noqa: FBT003 - the name says it
    except OSError:
        new.close()
        raise
    return new
