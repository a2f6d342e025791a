"""Standard output of the commands, with errors that no code between mistakes for its own."""

import contextlib
import errno
import os
import sys
from typing import Final, TextIO

_READER_LEFT: Final = "the program that reads the output has closed it"


class OutputFailed(Exception):
    """Standard output cannot be written.

    It is no OSError: argparse ignores one, and commands explain one as a failure of what they test.
    """


class Output:
    """Standard output, on which a failed write or flush raises `OutputFailed`.

    Args:
        stream: The real stream; None if it was closed before the process began.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.encoding = "utf-8" if stream is None else stream.encoding

    def write(self, text: str) -> int:
        """Write text.

        Raises:
            OutputFailed
        """
        if self._stream is None:
            raise OutputFailed(os.strerror(errno.EBADF))
        try:
            return self._stream.write(text)
        except OSError as error:
            raise _failure(error) from error

    def flush(self) -> None:
        """Write the buffered text.

        Raises:
            OutputFailed
        """
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as error:
            raise _failure(error) from error

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor.

        Raises:
            OSError: It is closed.
        """
        if self._stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._stream.fileno()

    def discard(self) -> None:
        """Discard the buffered text and any further text, because Python would fail to flush it at exit."""
        if self._stream is not None:
            _send_nowhere(self._stream.fileno())
            self._stream.flush()


def announce(text: str) -> None:
    """Print a text of a service, which a closed or full standard output does not stop."""
    try:
        print(text, flush=True)
    except (OSError, OutputFailed):
        with contextlib.suppress(OSError):
            _send_nowhere(sys.stdout.fileno())


def _send_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _failure(error: OSError) -> OutputFailed:
    return OutputFailed(_READER_LEFT if isinstance(error, BrokenPipeError) else error.strerror or str(error))
