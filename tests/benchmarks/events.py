"""Check and time the events of a paced stream as they arrive."""

import time

from tests.benchmarks import wire
from tests.benchmarks.rounds import Tally


class EventReader:
    """Read one stream.

    Args:
        nonce: Marks each event of this stream, and no other.
        events: How many it has.
        tally: Where times and faults are counted.
        exact: Whether the bytes must be those of the upstream. Otherwise events without one of its texts
            and a missing end marker are no faults.
    """

    def __init__(self, nonce: str, events: int, tally: Tally, *, exact: bool = True) -> None:
        self._ended = False
        self._nonce = nonce.encode()
        self._events = events
        self._tally = tally
        self._exact = exact
        self._pattern = wire.paced_pattern() if exact else wire.rewritten_pattern()
        self._unread = b""
        self._seen: set[int] = set()
        self._highest = -1
        self._last_ns = 0

    @property
    def whole(self) -> bool:
        """Whether all events and the end marker arrived, and nothing else."""
        return len(self._seen) == self._events and (not self._exact or (self._ended and not self._unread))

    def feed(self, data: bytes) -> None:
        """Read the complete events."""
        now = time.monotonic_ns()
        *events, self._unread = (self._unread + data).split(b"\n\n")
        for event in events:
            fault = self._take(event, now)
            if fault is not None:
                self._tally.failures[fault] += 1

    def _take(self, event: bytes, now: int) -> str | None:
        if event + b"\n\n" == wire.DONE:
            fault = "doubled" if self._ended else None
            self._ended = True
            return fault
        match = self._pattern.fullmatch(event)
        if match is None:
            return "altered" if self._exact else None
        if match[1] != self._nonce:
            return "foreign"
        number = int(match[2])
        if number in self._seen:
            return "doubled"
        late = self._ended or number < self._highest
        self._seen.add(number)
        self._highest = max(self._highest, number)
        self._tally.latencies_ms.append((now - int(match[3])) / 1_000_000)
        if self._last_ns:
            self._tally.gaps_ms.append((now - self._last_ns) / 1_000_000)
        self._last_ns = now
        return "reordered" if late else None
