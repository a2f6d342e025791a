"""Which requests are rejected while the process is overloaded: those of the callers that cause it."""

from collections import Counter
from typing import Final

from proxy.access.caller import Caller
from proxy.errors import ServerOverloaded
from proxy.telemetry.loop_lag import LoopLag

OVERLOADED_SHARE: Final = 0.5
"""The process is overloaded if its event loop was late in more than this share of the last second."""


class Load:
    """The requests of each caller that are in progress.

    Args:
        lag: The lag of the event loop. It grows when there is more to do than the process can do.
    """

    def __init__(self, lag: LoopLag) -> None:
        self._lag = lag
        self._running: Counter[str] = Counter()

    def begin(self, caller: Caller, max_lag: float) -> None:
        """Count a request; `end` must follow unless it is rejected.

        Under overload, each caller gets an equal share of the requests in progress. A request above the
        share is rejected, but never the only request of its caller.

        Args:
            caller: The caller that sends it.
            max_lag: The event-loop lag in seconds above which requests are rejected; 0 disables the check.

        Raises:
            ServerOverloaded: the process is overloaded, and the caller already uses its share.
        """
        name, running = caller.name, self._running
        is_overloaded = max_lag > 0 and self._lag.late_share(max_lag) > OVERLOADED_SHARE
        if is_overloaded and 0 < running.total() <= running[name] * len(running):
            raise ServerOverloaded(reason="loop lag")
        running[name] += 1

    def end(self, caller: Caller) -> None:
        """Forget a request that has ended."""
        self._running[caller.name] -= 1
        if not self._running[caller.name]:
            del self._running[caller.name]
