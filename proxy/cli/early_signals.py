"""Handle SIGTERM and SIGHUP from the first moment of a process.

By default they end a process at once: a service that still reads its settings could not be reloaded, and a
command would leave a program that it has started running.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

SERVERS: Final = frozenset({"serve", "gateway"})
_BY_DEFAULT: Final = 128
"""The exit status of a command that a signal ends is this, plus the signal's number."""


class EarlySignals:
    """The signals that a process has received before it serves, if it is to serve.

    Args:
        serves: Whether the command is to serve. SIGHUP does not end it then, and a stop is a success.
    """

    def __init__(self, *, serves: bool) -> None:
        self._serves = serves
        self.received: list[int] = []

    @property
    def status(self) -> int:
        """The exit status of the command after it was interrupted; SIGINT alone is a failure like others."""
        if self._serves:
            return 0
        return _BY_DEFAULT + self.received[0] if self.received else 1

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the command as SIGINT does, which cancels what asyncio runs. The frame is not used.

        Raises:
            KeyboardInterrupt: Unless asyncio handles SIGINT.
        """
        self.received.append(number)
        if self._serves and number != signal.SIGTERM:
            return
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):  # SIGINT is ignored, as by a shell for a command in the background.
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)


@contextlib.contextmanager
def handled_early(command: str) -> Iterator[EarlySignals]:
    """Handle SIGTERM and SIGHUP for as long as the block runs. A signal that is ignored stays ignored.

    Args:
        command: The command of this process.
    """
    early = EarlySignals(serves=command in SERVERS)
    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP.
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, early.handle)
    try:
        yield early
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
