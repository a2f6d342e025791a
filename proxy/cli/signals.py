"""The signals that a service handles, from before its port opens until it has ended."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_HANGUP: Final = tuple(getattr(signal, name) for name in ("SIGHUP",) if hasattr(signal, name))


class Signals:
    """Turns signals into events. A signal that arrives before the event loop runs sets its event later."""

    def __init__(self) -> None:
        self._early: set[int] = set()

    def remember(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal while no event loop runs."""
        self._early.add(number)

    def stop(self) -> asyncio.Event:
        """Return an event that SIGTERM and SIGINT set; needs a running loop."""
        return self._event(*_STOP)

    def hangup(self) -> asyncio.Event:
        """Return an event that SIGHUP sets; needs a running loop."""
        return self._event(*_HANGUP)

    def _event(self, *numbers: int) -> asyncio.Event:
        event = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in numbers:
            with contextlib.suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(number, event.set)
        if self._early.intersection(numbers):
            event.set()
        return event


@contextlib.contextmanager
def handled_signals() -> Iterator[Signals]:
    """Handle signals for as long as the block runs. Enter it before a port opens.

    By default SIGHUP ends a process, so a reload that follows the first successful connection would kill it.
    """
    signals = Signals()
    before = {number: signal.signal(number, signals.remember) for number in (*_STOP, *_HANGUP)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
