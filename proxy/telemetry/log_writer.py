"""Write the log from a thread of its own, so that a slow, full or dead log never blocks a request."""

import contextlib
import io
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Final, TextIO

LINES_MAX: Final = 10_000
BYTES_MAX: Final = 8 << 20
"""Lines that wait for a log that takes none are bounded in number and in bytes; further lines are dropped."""
CLOSE_SECONDS: Final = 1.0
_BATCH_BYTES: Final = 64 << 10
_PAUSE_SECONDS: Final = 0.1


class LogWriter(io.TextIOBase):
    """A text stream whose `write` returns at once.

    Args:
        stream: Where the lines go. Lines for a stream that is closed or absent are dropped.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self.dropped = 0
        """Writes that were lost, because the log was full, or too slow for too long."""
        self._target = _descriptor_of(stream)
        self._is_terminal = self._target is not None and os.isatty(self._target)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closing = self._abandoned = False
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)

    def start(self) -> None:
        """Begin to write; until then lines wait."""
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue text; drop it if too much waits already."""
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            is_full = len(self._waiting) >= LINES_MAX or self._waiting_bytes + len(data) > BYTES_MAX
            if is_full or self._closing or self._target is None:
                self.dropped += 1
            else:
                self._waiting.append(data)
                self._waiting_bytes += len(data)
                self._changed.notify()
        return len(text)

    def writable(self) -> bool:
        """Return True, as text streams do."""
        return True

    def isatty(self) -> bool:
        """Whether the lines go to a terminal."""
        return self._is_terminal

    def flush(self) -> None:
        """Do nothing: nobody may wait for the log."""

    def finish(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write what still waits, for some seconds at most; then drop what comes."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        self._abandoned = True

    def _write_all(self) -> None:
        while not self._abandoned and (batch := self._next()):
            if not self._write_batch(b"".join(batch)):
                with self._changed:
                    self.dropped += len(batch)
        if self._target is not None:
            os.close(self._target)

    def _next(self) -> list[bytes]:
        """The next lines; none at the end."""
        batch, size = [], 0
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            while self._waiting and size < _BATCH_BYTES:
                line = self._waiting.popleft()
                self._waiting_bytes -= len(line)
                size += len(line)
                batch.append(line)
        return batch

    def _write_batch(self, data: bytes) -> bool:
        """Whether the data could be written. A full pipe is waited for, other errors are not."""
        target = self._target
        view = memoryview(data)
        while view and target is not None and not self._abandoned:
            try:
                view = view[os.write(target, view) :]
            except BlockingIOError:
                time.sleep(_PAUSE_SECONDS)
            except OSError:  # closed, no reader, no space: the next lines may fare better
                time.sleep(_PAUSE_SECONDS)
                return False
        return not view


def _descriptor_of(stream: TextIO | None) -> int | None:
    """A descriptor of our own, which nobody closes while the thread writes."""
    try:
        return None if stream is None else os.dup(stream.fileno())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def writing_to(stream: TextIO | None) -> Iterator[LogWriter]:
    """Write to a stream from a thread, until the end."""
    writer = LogWriter(stream)
    writer.start()
    try:
        yield writer
    finally:
        writer.finish()
