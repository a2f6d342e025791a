"""Which requests are rejected while the process is overloaded: those of the callers that cause it."""

import math
import time
from collections import Counter
from typing import Final

from proxy.access.caller import Caller
from proxy.errors import ServerOverloaded
from proxy.telemetry.loop_lag import LoopLag

OVERLOADED_SHARE: Final = 0.5
"""The process is overloaded if requests were late in more than this share of the last second."""
SHRINK: Final = 0.9
"""The limit shrinks by this factor at each late measurement. After a measurement in time it grows by one if
requests have reached it."""
RELEASE_SECONDS: Final = 10.0
"""The limit ends after this time without a late measurement."""


class Load:
    """The requests of each caller that are in progress, and how many may wait for their response.

    There is no limit until the process is overloaded. Then it follows the measurements, so that the
    lateness stays near the accepted value.

    Args:
        lag: The lag of the event loop. It grows when there is more to do than the process can do.
    """

    def __init__(self, lag: LoopLag) -> None:
        self._lag = lag
        self._running: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        """Those whose response has not begun: a stream that runs costs little."""
        self._max_lag = 0.0
        self._waiting_max = math.inf
        self._late_at = -math.inf
        lag.listener = self._adapt

    def begin(self, caller: Caller, max_lag: float) -> None:
        """Count a request; `begin_response` and `end` must follow unless it is rejected.

        Under overload, each caller gets an equal share of the requests that may wait for their response. A
        request above the share is rejected, but never the only request of its caller.

        Args:
            caller: The caller that sends it.
            max_lag: How late requests may be, in seconds, before some are rejected; 0 disables the check.

        Raises:
            ServerOverloaded: The process is overloaded, and the caller already uses its share.
        """
        name, waiting = caller.name, self._waiting
        self._max_lag = max_lag
        if self._is_full() and name in self._running and waiting.total() <= waiting[name] * len(waiting):
            raise ServerOverloaded(reason="loop lag")
        self._running[name] += 1
        waiting[name] += 1

    def _is_full(self) -> bool:
        if not self._max_lag:
            self._waiting_max = math.inf
        elif self._waiting_max == math.inf and self._lag.late_share(self._max_lag) > OVERLOADED_SHARE:
            self._waiting_max, self._late_at = self._waiting.total() / 2, time.monotonic()
        return self._waiting_max < math.inf and self._waiting.total() >= self._waiting_max

    def _adapt(self, late: float) -> None:
        """Adapt the limit after a measurement."""
        if self._waiting_max == math.inf:
            return
        now = time.monotonic()
        if late >= self._max_lag:
            self._late_at = now
            self._waiting_max *= SHRINK
        elif now > self._late_at + RELEASE_SECONDS:
            self._waiting_max = math.inf
        elif self._waiting.total() >= self._waiting_max:
            self._waiting_max += 1

    def begin_response(self, caller: Caller) -> None:
        """Note that the response to a request has begun."""
        _decrement(self._waiting, caller.name)

    def end(self, caller: Caller) -> None:
        """Forget a request that has ended, and whose response has begun."""
        _decrement(self._running, caller.name)


def _decrement(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
