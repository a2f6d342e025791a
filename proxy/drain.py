"""The end of a worker: which exchanges still run, and how they are stopped."""

import contextlib
from collections.abc import Callable
from typing import Protocol


class Stoppable(Protocol):
    """Something that can end an exchange; see `proxy.upstream.clock.ExchangeClock`."""

    def stop(self) -> None:
        """End the exchange now."""


class Drain:
    """Whether the service is shutting down, and the exchanges that still run."""

    def __init__(self) -> None:
        self.announced = False
        """Whether readiness is 503, so that callers are sent elsewhere; requests are still served."""
        self._started = self._stopped = False
        self._clocks: set[Stoppable] = set()
        self._callbacks: list[Callable[[], object]] = []

    @property
    def started(self) -> bool:
        """Whether the drain has started. Setting it starts the drain and runs the callbacks."""
        return self._started

    @started.setter
    def started(self, started: bool) -> None:
        starts = started and not self._started
        self._started = started
        self.announced |= started
        for callback in self._callbacks if starts else ():
            callback()

    def when_started(self, callback: Callable[[], object]) -> None:
        """Run a callback when the drain starts; at once if it has started."""
        self._callbacks.append(callback)
        if self._started:
            callback()

    def watch(self, clock: Stoppable) -> contextlib.AbstractContextManager[None]:
        """Count an exchange while it runs, and stop it when the drain is over."""
        return _Watch(self, clock)

    def begin(self, clock: Stoppable) -> None:
        """Count an exchange; `end` must follow."""
        self._clocks.add(clock)
        if self._stopped:  # The exchange began too late.
            clock.stop()

    def end(self, clock: Stoppable) -> None:
        """Stop counting an exchange."""
        self._clocks.discard(clock)

    @property
    def running(self) -> int:
        """The number of exchanges that still run."""
        return len(self._clocks)

    def stop_all(self) -> None:
        """End all exchanges that run, and those that still begin, each with its error event."""
        self._stopped = True
        for clock in list(self._clocks):
            clock.stop()


class _Watch(contextlib.AbstractContextManager[None]):
    """A context manager for each request; a generator would cost several times as much."""

    def __init__(self, drain: Drain, clock: Stoppable) -> None:
        self._drain = drain
        self._clock = clock

    def __enter__(self) -> None:
        self._drain.begin(self._clock)

    def __exit__(self, *_: object) -> None:
        self._drain.end(self._clock)
