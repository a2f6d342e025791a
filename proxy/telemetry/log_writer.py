"""Write the log in a separate thread, so that a slow or broken log never blocks a request."""

import contextlib
import io
import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Final, TextIO

LINES_MAX: Final = 10_000
BYTES_MAX: Final = 8 << 20
"""Limits on the lines that wait to be written. Further lines are dropped."""
CLOSE_SECONDS: Final = 1.0
GATHER_SECONDS: Final = 0.02
"""How long a line waits for others: waking the thread for each one costs more CPU than writing it."""
_BATCH_BYTES: Final = 64 << 10
_PAUSE_SECONDS: Final = 0.1


class LogWriter(io.TextIOBase):
    """A text stream whose `write` returns immediately.

    Args:
        stream: The stream to write to. If it is closed or None, lines are dropped.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self.dropped = 0
        """The number of writes that were dropped, because the log was full or too slow."""
        self._target = _descriptor_of(stream)
        self._is_terminal = self._target is not None and os.isatty(self._target)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._is_idle = False
        """Whether the thread waits for a first line."""
        self._closing = self._abandoned = False
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)

    def start(self) -> None:
        """Start writing. Lines written before wait."""
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue text, or drop it if the queue is full."""
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            is_full = len(self._waiting) >= LINES_MAX or self._waiting_bytes + len(data) > BYTES_MAX
            if is_full or self._closing or self._target is None:
                self.dropped += 1
            else:
                self._waiting.append(data)
                self._waiting_bytes += len(data)
                if self._is_idle:
                    self._is_idle = False
                    self._changed.notify()
        return len(text)

    def writable(self) -> bool:
        """Return True, as text streams do."""
        return True

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._is_terminal

    def flush(self) -> None:
        """Do nothing, because no request may wait for the log."""

    def finish(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write the lines that still wait, for a limited time, and drop all later lines."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        self._abandoned = True

    def _write_all(self) -> None:
        while not self._abandoned and (batch := self._next()):
            for lines in _atomic_writes(batch):
                if not self._write_batch(b"".join(lines)):
                    with self._changed:
                        self.dropped += len(lines)
        if self._target is not None:
            os.close(self._target)

    def _next(self) -> list[bytes]:
        """Wait for lines and return the next ones; none at the end."""
        batch, size = [], 0
        with self._changed:
            while not self._waiting and not self._closing:
                self._is_idle = True
                self._changed.wait()
            self._is_idle = False
            if not self._closing:
                self._changed.wait(GATHER_SECONDS)
            while self._waiting and size < _BATCH_BYTES:
                line = self._waiting.popleft()
                self._waiting_bytes -= len(line)
                size += len(line)
                batch.append(line)
        return batch

    def _write_batch(self, data: bytes) -> bool:
        """Write data; return whether that succeeded. Wait while a pipe is full, but not for other errors."""
        target = self._target
        view = memoryview(data)
        while view and target is not None and not self._abandoned:
            try:
                view = view[os.write(target, view) :]
            except BlockingIOError:
                time.sleep(_PAUSE_SECONDS)
            except OSError:  # Closed, no reader or no space. The next lines may succeed.
                time.sleep(_PAUSE_SECONDS)
                return False
        return not view


def _atomic_writes(batch: list[bytes]) -> Iterator[list[bytes]]:
    """Group lines so that a pipe takes each group as a whole: several workers write to the same one."""
    lines, size = list[bytes](), 0
    for line in batch:
        if lines and size + len(line) > select.PIPE_BUF:
            yield lines
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    yield lines


def _descriptor_of(stream: TextIO | None) -> int | None:
    """Duplicate the descriptor, so that it stays open while the thread writes."""
    try:
        return None if stream is None else os.dup(stream.fileno())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def writing_to(stream: TextIO | None) -> Iterator[LogWriter]:
    """Write to a stream from a thread until the block ends."""
    writer = LogWriter(stream)
    writer.start()
    try:
        yield writer
    finally:
        writer.finish()
