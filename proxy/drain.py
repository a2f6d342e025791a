"""The end of a worker's life: what still runs, and how it is told to stop."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from proxy.upstream.clock import ExchangeClock


@dataclass(slots=True)
class Drain:
    """Whether the service is on its way out, and the exchanges that still run."""

    started: bool = False
    _clocks: set[ExchangeClock] = field(default_factory=set)

    @contextlib.contextmanager
    def watch(self, clock: ExchangeClock) -> Iterator[None]:
        """Count an exchange for as long as it runs."""
        self._clocks.add(clock)
        try:
            yield
        finally:
            self._clocks.discard(clock)

    @property
    def running(self) -> int:
        """How many exchanges still run."""
        return len(self._clocks)

    def stop_all(self) -> None:
        """End what still runs, each with its error event."""
        for clock in list(self._clocks):
            clock.stop()
