"""Handle signals from before the port opens until the service has stopped."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import Final

import msgspec

STOP: Final = (signal.SIGTERM, signal.SIGINT)
HANGUP: Final = tuple(getattr(signal, name) for name in ("SIGHUP",) if hasattr(signal, name))


class Stop(msgspec.Struct, frozen=True):
    """A request that the service stops."""

    requested: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    without_delay: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """Set by SIGINT, whose sender waits at a terminal, and by any second signal."""

    def signalled(self, number: int) -> None:
        """Handle SIGTERM or SIGINT."""
        if number == signal.SIGINT or self.requested.is_set():
            self.without_delay.set()
        self.requested.set()


class Signals:
    """Turns signals into events. A signal received before the event loop runs sets its event later."""

    def __init__(self) -> None:
        self.early: list[int] = []

    def remember(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal while no event loop runs."""
        self.early.append(number)

    def stop(self) -> Stop:
        """Return the events that SIGTERM and SIGINT set; needs a running loop."""
        stop = Stop()
        self.handle(STOP, stop.signalled)
        return stop

    def hangup(self) -> asyncio.Event:
        """Return an event that SIGHUP sets; needs a running loop."""
        event = asyncio.Event()
        self.handle(HANGUP, lambda _: event.set())
        return event

    def handle(self, numbers: Sequence[int], act: Callable[[int], None]) -> None:
        """Call back at each of these signals; needs a running loop."""
        loop = asyncio.get_running_loop()
        for number in numbers:
            with contextlib.suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(number, partial(act, number))
        for number in self.early:
            if number in numbers:
                act(number)


@contextlib.contextmanager
def handled_signals(early: Sequence[int] = ()) -> Iterator[Signals]:
    """Handle signals for as long as the block runs. Enter it before a port opens.

    By default SIGHUP ends a process, so a reload that follows the first successful connection would kill it.

    Args:
        early: The signals that were received before.
    """
    signals = Signals()
    before = {number: signal.signal(number, signals.remember) for number in (*STOP, *HANGUP)}
    signals.early[:0] = early
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
