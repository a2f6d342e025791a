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
        self._waits: set[Stoppable] = set()
        """Waits for callers: they are stopped as well, but do not count as exchanges that run."""
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
        return _Watch(self, self._clocks, clock)

    def watch_wait(self, wait: Stoppable) -> contextlib.AbstractContextManager[None]:
        """Stop a wait for a caller's bytes when the drain is over, without counting it as an exchange."""
        return _Watch(self, self._waits, wait)

    def begin(self, clock: Stoppable) -> None:
        """Count an exchange; `end` must follow."""
        self._begin(self._clocks, clock)

    def _begin(self, stoppables: set[Stoppable], one: Stoppable) -> None:
        stoppables.add(one)
        if self._stopped:  # It began too late.
            one.stop()

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
        for one in [*self._clocks, *self._waits]:
            one.stop()


class _Watch(contextlib.AbstractContextManager[None]):
    """A context manager for each request; a generator would cost several times as much."""

    def __init__(self, drain: Drain, stoppables: set[Stoppable], one: Stoppable) -> None:
        self._drain = drain
        self._stoppables = stoppables
        self._one = one

    def __enter__(self) -> None:
        self._drain._begin(self._stoppables, self._one)

    def __exit__(self, *_: object) -> None:
        self._stoppables.discard(self._one)
