"""How late the event loop of a worker runs its timers: blocking it delays every stream."""

import asyncio
import math
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from proxy.telemetry.histogram import Histogram

PERIOD_SECONDS: Final = 0.02
"""Shorter than the stalls that matter. The clock of uvloop has a resolution of a millisecond."""
WINDOW_SECONDS: Final = 60.0
"""The window of the longest lag: at least the usual scrape interval, so that each scrape sees the longest lag
since the last one."""
RECENT_SECONDS: Final = 1.0
"""A burst of requests delays the loop for less than this; too much work for longer."""
REQUEST_TURNS: Final = 10
"""A relayed request takes more turns of the loop than this before its response begins. With hundreds of
requests in turn, each turn may be short although every request is late."""
_TCP_INFO_QUEUED: Final = 24
"""The offset of `tcpi_unacked` in Linux's `struct tcp_info`: of a listener, the length of its queue."""
BUCKETS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class LoopLag:
    """A histogram of the lag since start-up, and the longest lag of the last minute.

    Args:
        listeners: The sockets whose connections wait where the loop accepts one in each turn, as
            uvloop does: a flood of connections delays requests there, while the loop itself is on time.
    """

    def __init__(self, listeners: Sequence[socket.socket] = ()) -> None:
        self._listeners = listeners
        self.histogram = Histogram(BUCKETS)
        """All measurements, in seconds."""
        self.listener: Callable[[float], None] | None = None
        """A function that gets the lateness of requests after each measurement."""
        self._recent: deque[float] = deque()
        self._recent_seconds = 0.0
        self._late_shares: dict[float, float] = {}
        """The results of `late_share` since the last measurement: every request asks."""
        self._window_end = -math.inf
        self._maximum = self._previous_maximum = 0.0

    async def measure(self, has_requests: Callable[[], bool]) -> None:
        """Measure until cancelled.

        Args:
            has_requests: Whether requests are in progress. If not, and if no connection waits, no turns are
                taken, because they would be most of the work of an idle process.
        """
        while True:
            due = time.monotonic() + PERIOD_SECONDS
            await asyncio.sleep(PERIOD_SECONDS)
            now = time.monotonic()
            late = max(0.0, now - due)
            if has_requests() or self._queued():
                for _ in range(REQUEST_TURNS):
                    await asyncio.sleep(0)
                end = time.monotonic()
                self.add(late, now, max(0.0, end - due) + self._queued() * (end - now) / REQUEST_TURNS)
            else:
                self.add(late, now)

    def _queued(self) -> int:
        """Return the number of connections that wait at the listener with the most."""
        return max(map(_queued_connections, self._listeners), default=0)

    def add(self, lag: float, now: float, request_lag: float | None = None) -> None:
        """Count one measurement.

        Args:
            lag: How late a timer was.
            now: The time.
            request_lag: How late the work of `REQUEST_TURNS` turns was; by default as late as the timer.
        """
        late = lag if request_lag is None else request_lag
        self.histogram.add(lag)
        self._turn_window(now)
        self._maximum = max(self._maximum, lag)
        self._late_shares.clear()
        self._recent.append(late)
        self._recent_seconds += PERIOD_SECONDS + late
        while self._recent_seconds - (oldest := PERIOD_SECONDS + self._recent[0]) >= RECENT_SECONDS:
            self._recent.popleft()
            self._recent_seconds -= oldest
        if self.listener is not None:
            self.listener(late)

    def late_share(self, seconds: float) -> float:
        """Return the share of the last second in which requests were late by at least the given time."""
        if seconds not in self._late_shares:
            late = sum(PERIOD_SECONDS + lag for lag in self._recent if lag >= seconds)
            self._late_shares[seconds] = late / max(self._recent_seconds, RECENT_SECONDS)
        return self._late_shares[seconds]

    def maximum(self, now: float) -> float:
        """Return the longest lag of the last minute, or of up to two."""
        self._turn_window(now)
        return max(self._maximum, self._previous_maximum)

    def _turn_window(self, now: float) -> None:
        if now < self._window_end:
            return
        is_next = now < self._window_end + WINDOW_SECONDS
        self._previous_maximum = self._maximum if is_next else 0.0
        self._maximum = 0.0
        self._window_end = now + WINDOW_SECONDS


def _queued_connections(listener: socket.socket) -> int:
    """Return the number of connections that wait to be accepted, where the system tells it."""
    if sys.platform != "linux" or listener.family == socket.AF_UNIX:
        return 0
    try:
        reading = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_QUEUED + 4)
        (queued,) = struct.unpack_from("=I", reading, _TCP_INFO_QUEUED)
    except (OSError, struct.error):  # a socket that is closed, or a system that only resembles Linux
        return 0
    return int(queued)
