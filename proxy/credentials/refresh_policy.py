"""The clocks and bounds of a cached source."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.credentials.backoff import Uniform

IDLE_LIFETIMES: Final = 2
"""A credential that nobody asked for in so many lifetimes is not refreshed: it goes cold."""
IDLE_SECONDS: Final = 60.0
"""The same, where there is no token whose lifetime could be counted; then also the pace of further probes."""


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    """The clocks and bounds of a cached source; all times in seconds."""

    fetch_timeout: float = 15.0
    """One fetch, from start to end."""
    flight_timeout: float = 15.0
    """One flight: the fetch, or the wait for somebody else's."""
    wait_timeout: float = 20.0
    """What a caller waits at most for a token that is not there."""
    lease_seconds: float = 2.0
    """A process of the fleet that is gone while it fetches is missed for no longer than this."""
    max_waiters: int = 20_000
    clock: Callable[[], float] = time.monotonic
    uniform: Uniform = random.uniform
