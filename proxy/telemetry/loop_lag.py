"""How late the event loop of a worker runs its timers: blocking it delays every stream."""

import asyncio
import math
import time
from collections import deque
from typing import Final

from proxy.telemetry.histogram import Histogram

PERIOD_SECONDS: Final = 0.02
"""Shorter than the stalls that matter. The clock of uvloop has a resolution of a millisecond."""
WINDOW_SECONDS: Final = 60.0
"""The window of the longest lag: at least the usual scrape interval, so that each scrape sees the longest lag
since the last one."""
RECENT_SECONDS: Final = 1.0
"""A burst of requests delays the loop for less than this; too much work for longer."""
BUCKETS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class LoopLag:
    """A histogram of the lag since start-up, and the longest lag of the last minute."""

    def __init__(self) -> None:
        self.histogram = Histogram(BUCKETS)
        """All measurements, in seconds."""
        self._recent: deque[float] = deque()
        self._recent_seconds = 0.0
        self._window_end = -math.inf
        self._maximum = self._previous_maximum = 0.0

    async def measure(self) -> None:
        """Measure until cancelled."""
        while True:
            due = time.monotonic() + PERIOD_SECONDS
            await asyncio.sleep(PERIOD_SECONDS)
            now = time.monotonic()
            self.add(max(0.0, now - due), now)

    def add(self, lag: float, now: float) -> None:
        """Count one measurement."""
        self.histogram.add(lag)
        self._turn_window(now)
        self._maximum = max(self._maximum, lag)
        self._recent.append(lag)
        self._recent_seconds += PERIOD_SECONDS + lag
        while self._recent_seconds - (oldest := PERIOD_SECONDS + self._recent[0]) >= RECENT_SECONDS:
            self._recent.popleft()
            self._recent_seconds -= oldest

    def late_share(self, seconds: float) -> float:
        """The share of the last second in which the loop was late by at least so much."""
        late = sum(PERIOD_SECONDS + lag for lag in self._recent if lag >= seconds)
        return late / max(self._recent_seconds, RECENT_SECONDS)

    def maximum(self, now: float) -> float:
        """The longest lag of the last minute, or of up to two."""
        self._turn_window(now)
        return max(self._maximum, self._previous_maximum)

    def _turn_window(self, now: float) -> None:
        if now < self._window_end:
            return
        is_next = now < self._window_end + WINDOW_SECONDS
        self._previous_maximum = self._maximum if is_next else 0.0
        self._maximum = 0.0
        self._window_end = now + WINDOW_SECONDS
