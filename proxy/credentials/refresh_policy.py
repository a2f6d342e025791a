"""When a token is fetched: the clocks and bounds of a cached source, and its pauses after failures (pure)."""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.credentials.credential import Credential
from proxy.credentials.sources import TokenFetchError

FIRST_DELAY_SECONDS: Final = 0.5
DELAY_SECONDS_MAX: Final = 15.0
DELAY_WITHOUT_TOKEN_SECONDS: Final = (1.0, 1.5)
"""Callers are failing: try about once a second, so that service is back soon after the issuer."""
REFUSALS_IN_A_ROW: Final = 8
"""So often a refused request is repeated soon: issuers that start up refuse what they accept a moment later.
Then the pauses double."""
DELAY_REFUSED_SECONDS: Final = 0.8
DELAY_REFUSED_SECONDS_MAX: Final = 60.0
RETRY_AFTER_SECONDS_MAX: Final = 300.0
"""An issuer is not left alone for longer than this, whatever its Retry-After says."""

IDLE_LIFETIMES: Final = 2
"""A credential that nobody asked for in so many lifetimes is not refreshed: it goes cold."""
IDLE_SECONDS: Final = 60.0
"""The same, where there is no token whose lifetime could be counted; then also the pace of further probes."""


Uniform = Callable[[float, float], float]


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
    exclusive: bool = False
    """Whether a new token revokes the one before: then two processes must never fetch at once."""
    max_waiters: int = 20_000
    clock: Callable[[], float] = time.monotonic
    uniform: Uniform = random.uniform


def is_in_use(current: Credential | None, idle: float) -> bool:
    """Whether somebody wanted a credential lately enough for it to be renewed.

    Args:
        current: The one that may be sent, if there is one.
        idle: Seconds since it was last asked for.
    """
    return idle <= (IDLE_SECONDS if current is None else IDLE_LIFETIMES * current.lifetime)


def next_fetch(
    current: Credential | None, now: float, *, idle: float, failures: int, backoff_until: float
) -> float:
    """When the next fetch is due: at the soft end of the token, or at the end of the back-off.

    A failure is probed for ever, if seldom while nobody asks: a service that is not ready gets no requests
    that would. Infinite where nothing is due.
    """
    if failures == 0:
        return current.soft if current is not None and current.soft < current.hard else math.inf
    due = max(backoff_until, current.soft if current else now)
    return due if is_in_use(current, idle) else max(due, now + IDLE_SECONDS)


def retry_delay(error: TokenFetchError, failures: int, remaining: float | None, uniform: Uniform) -> float:
    """Return the seconds until the next attempt.

    Args:
        error: The failure.
        failures: How many in a row, this one included.
        remaining: Seconds that the token in hand may still be sent; None or less than 0 without one.
        uniform: Draws between two bounds.
    """
    if error.retry_after is not None:
        return min(max(error.retry_after, FIRST_DELAY_SECONDS), RETRY_AFTER_SECONDS_MAX)
    if error.permanent:
        doubled = 2.0 ** min(max(failures - REFUSALS_IN_A_ROW, 0), 16)
        longest = min(DELAY_REFUSED_SECONDS * doubled, DELAY_REFUSED_SECONDS_MAX)
        return uniform(0.65 * longest, longest)
    if remaining is None or remaining <= 0:
        return uniform(*DELAY_WITHOUT_TOKEN_SECONDS)
    # A quarter of what remains, again and again, would make more and more attempts up to the end.
    longest = min(DELAY_SECONDS_MAX, FIRST_DELAY_SECONDS * 2.0 ** min(failures, 16), remaining / 4)
    longest = max(longest, FIRST_DELAY_SECONDS)
    return uniform(longest / 2, longest)
