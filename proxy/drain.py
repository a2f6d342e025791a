"""The end of a worker's life: what still runs, and how it is told to stop."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol


class Stoppable(Protocol):
    """What ends an exchange; see `proxy.upstream.clock.ExchangeClock`."""

    def stop(self) -> None:
        """End the exchange now."""


class Drain:
    """Whether the service is on its way out, and the exchanges that still run."""

    def __init__(self) -> None:
        self.announced = False
        """Whether callers should go elsewhere; those that come in spite of it are served."""
        self._started = self._stopped = False
        self._clocks: set[Stoppable] = set()
        self._told: list[Callable[[], object]] = []

    @property
    def started(self) -> bool:
        """Whether it has begun; setting it begins it, and tells whoever wants to know."""
        return self._started

    @started.setter
    def started(self, started: bool) -> None:
        tell = started and not self._started
        self._started = started
        self.announced |= started
        for act in self._told if tell else ():
            act()

    def when_started(self, act: Callable[[], object]) -> None:
        """Let somebody know when it begins; at once where it has begun."""
        self._told.append(act)
        if self._started:
            act()

    @contextlib.contextmanager
    def watch(self, clock: Stoppable) -> Iterator[None]:
        """Count an exchange for as long as it runs."""
        self._clocks.add(clock)
        if self._stopped:  # too late to begin
            clock.stop()
        try:
            yield
        finally:
            self._clocks.discard(clock)

    @property
    def running(self) -> int:
        """How many exchanges still run."""
        return len(self._clocks)

    def stop_all(self) -> None:
        """End what still runs, and what still begins, each with its error event."""
        self._stopped = True
        for clock in list(self._clocks):
            clock.stop()
