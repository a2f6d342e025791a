"""Which requests are refused while the process is overloaded: those of the callers that cause it."""

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
        lag: Of the event loop. It grows when there is more to do than the process can do.
    """

    def __init__(self, lag: LoopLag) -> None:
        self._lag = lag
        self._running: Counter[str] = Counter()

    def begin(self, caller: Caller, max_lag: float) -> None:
        """Count a request; `end` must follow unless it is refused.

        Under overload, each caller gets an equal share of the requests in progress, and what exceeds it is
        refused. A caller without any is never refused.

        Args:
            caller: Who sends it.
            max_lag: Of the event loop in seconds, from which requests are refused; 0 for never.

        Raises:
            ServerOverloaded: the caller has its share already.
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
