"""When a token is fetched: time limits, back-off after failures, and learning of real lifetimes (pure)."""

import math
import random
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from proxy.credentials.sources import TokenFetchError
from proxy.credentials.token import Token
from proxy.elapsed import elapsed

FIRST_DELAY_SECONDS: Final = 0.5
DELAY_SECONDS_MAX: Final = 15.0
DELAY_WITHOUT_TOKEN_SECONDS: Final = (1.0, 1.5)
"""Without a token, requests fail: try about once a second, to recover soon after the issuer does."""
REFUSALS_IN_A_ROW: Final = 8
"""The number of refusals after which the delays start to double. Issuers that are starting up may refuse a
request that they accept a moment later."""
DELAY_REFUSED_SECONDS: Final = 0.8
DELAY_REFUSED_SECONDS_MAX: Final = 60.0
RETRY_AFTER_SECONDS_MAX: Final = 300.0
"""The longest delay that Retry-After may cause, before a random part of up to a tenth."""

IDLE_LIFETIMES: Final = 2
"""A credential that was not used for this many lifetimes is not refreshed any more."""
IDLE_SECONDS: Final = 60.0
"""The same limit in seconds when there is no token; also the interval of further attempts for an unused
credential."""

Uniform = Callable[[float, float], float]


class RefreshPolicy(msgspec.Struct, frozen=True):
    """The time limits and bounds of a cached source, in seconds."""

    fetch_timeout: float = 15.0
    """The time limit for one fetch."""
    flight_timeout: float = 15.0
    """The time limit for one flight: the fetch, or the wait for that of another process or credential."""
    wait_timeout: float = 20.0
    """The longest wait of a caller for a token."""
    lease_seconds: float = 2.0
    """How long a process that died during a fetch can block the rest of the fleet."""
    exclusive: bool = False
    """Whether a new token revokes the previous one, so that two processes must never fetch at once."""
    max_waiters: int = 20_000
    clock: Callable[[], float] = elapsed
    uniform: Uniform = random.uniform


def is_in_use(current: Token | None, idle: float) -> bool:
    """Whether a token was used recently enough to be refreshed.

    Args:
        current: The token that may be sent, if there is one.
        idle: Seconds since it was last used.
    """
    return idle <= (IDLE_SECONDS if current is None else IDLE_LIFETIMES * current.lifetime)


def next_fetch(
    current: Token | None, now: float, *, idle: float, failures: int, backoff_until: float
) -> float:
    """Return the time of the next fetch: the refresh time of the token, or the end of the back-off.

    Failed fetches are repeated even if no caller needs the token, because a service that is not ready
    receives no requests. The result is infinite if no fetch is due.
    """
    if failures == 0:
        return (
            current.refresh_at
            if current is not None and current.refresh_at < current.expires_at
            else math.inf
        )
    due = max(backoff_until, current.refresh_at if current else now)
    return due if is_in_use(current, idle) else max(due, now + IDLE_SECONDS)


def retry_delay(error: TokenFetchError, failures: int, remaining: float | None, uniform: Uniform) -> float:
    """Return the number of seconds until the next attempt.

    Args:
        error: The failure.
        failures: The number of consecutive failures, including this one.
        remaining: Seconds for which the current token may still be sent; None or negative without one.
        uniform: Returns a random number between two bounds.
    """
    if error.retry_after is not None:
        return min(max(error.retry_after, FIRST_DELAY_SECONDS), RETRY_AFTER_SECONDS_MAX)
    if error.permanent:
        doubled = 2.0 ** min(max(failures - REFUSALS_IN_A_ROW, 0), 16)
        longest = min(DELAY_REFUSED_SECONDS * doubled, DELAY_REFUSED_SECONDS_MAX)
        return uniform(0.65 * longest, longest)
    if remaining is None or remaining <= 0:
        return uniform(*DELAY_WITHOUT_TOKEN_SECONDS)
    # A quarter of the remaining time alone would make attempts more and more frequent towards the end.
    longest = min(DELAY_SECONDS_MAX, FIRST_DELAY_SECONDS * 2.0 ** min(failures, 16), remaining / 4)
    longest = max(longest, FIRST_DELAY_SECONDS)
    return uniform(longest / 2, longest)


class Backoff:
    """The pause after failed fetches.

    Args:
        uniform: Returns a random number between two bounds.
    """

    def __init__(self, uniform: Uniform) -> None:
        self.failures = 0
        """The number of consecutive failures."""
        self.failure: TokenFetchError | None = None
        self.until = -1.0
        self._uniform = uniform

    def remaining(self, now: float) -> float:
        """Return the number of seconds until the next attempt is allowed; zero if it is."""
        return max(self.until - now, 0.0)

    def fail(self, error: TokenFetchError, now: float, remaining: float | None) -> float:
        """Record a failure, and return the number of seconds until the next attempt."""
        self.failures += 1
        self.failure = error
        delay = retry_delay(error, self.failures, remaining, self._uniform)
        if error.retry_after is not None:  # all processes may have been told the same moment
            delay = self._uniform(delay, 1.1 * delay)
        self.until = now + delay
        return delay


EARLY_DEATHS: Final = 2
DISPUTED_DEATHS: Final = 3
"""The number of early deaths that is needed if earlier tokens lived longer."""
HEALTHY_TOKENS: Final = 5
"""The number of healthy tokens after which a longer lifetime is tried; doubled after each failed try."""
HEALTHY_TOKENS_MAX: Final = 80
GROWTH: Final = 1.5
SECONDS_MIN: Final = 1.0


class _Death(NamedTuple):
    """A token that died early."""

    age: float
    """The age at which the upstream rejected it."""
    lived: float
    """The age at which the upstream last accepted it."""

    def agrees_with(self, other: "_Death") -> bool:
        """Whether the two tokens may have had the same lifetime."""
        return self.age >= other.lived and other.age >= self.lived


class LearnedLife:
    """The real lifetime of a credential's tokens, for issuers whose tokens expire earlier than announced.

    Issuers restart, gateways limit sessions, and clocks differ: a token announced to live for five minutes
    may be rejected after eight seconds. After two early deaths in a row, the observed lifetime decides when
    a token is refreshed and for how long it is sent. After some healthy tokens a longer lifetime is tried
    again.

    Upstreams also reject valid tokens, for example while one of their nodes fails. Tokens that die at random
    ages teach nothing: deaths count only if no two of them contradict each other, and more are needed if
    tokens are known to have lived longer.

    The caller leaves out deaths that prove little: if another process fetched a token in the meantime, or if
    the upstream accepts the token again.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        """The observed lifetime, if it overrides the announced one."""
        self._deaths: list[_Death] = []
        """The last early deaths in a row, none of which contradicts another one."""
        self._proved = 0.0
        """The highest age at which a token was accepted since the bound was last lowered."""
        self._healthy = 0
        self._needed_healthy = HEALTHY_TOKENS

    @property
    def longest(self) -> float:
        """The upper bound for the lifetime of a token."""
        return math.inf if self.seconds is None else self.seconds

    def record_early_death(self, age: float, lived: float = 0.0, *, certain: bool = True) -> bool:
        """Record a token that died early, and return whether the bound has changed.

        Args:
            age: The age at which the upstream rejected it, in seconds.
            lived: The age at which the upstream last accepted it; negative if it never did, so that the
                rejection does not show how long it lives.
            certain: Whether the expiry depends on the issuer's clock alone. Otherwise one early death is
                enough to show that the clocks differ.
        """
        if lived < 0:
            return False
        death = _Death(max(age, SECONDS_MIN), lived)
        self._deaths = [*(other for other in self._deaths if death.agrees_with(other)), death]
        is_disputed = death.age < self._proved
        self._proved = max(self._proved, lived)
        is_alone_enough = self.seconds is not None or not certain
        needed = DISPUTED_DEATHS if is_disputed else 1 if is_alone_enough else EARLY_DEATHS
        if len(self._deaths) < needed:
            return False
        shortest = min(each.age for each in self._deaths)
        self._proved = max(each.lived for each in self._deaths)
        self._deaths.clear()
        self._healthy = 0
        if self.seconds is not None:
            longer = HEALTHY_TOKENS if is_disputed else 2 * self._needed_healthy
            self._needed_healthy = min(longer, HEALTHY_TOKENS_MAX)
            shortest = min(self.seconds, shortest)
        changed, self.seconds = shortest != self.seconds, shortest
        return changed

    def record_full_life(self, announced: float, lived: float = 0.0) -> bool:
        """Record a token that worked to its end, and return whether the bound has changed.

        Args:
            announced: The lifetime that the issuer announced, in seconds.
            lived: The age at which the upstream last accepted it.
        """
        self._deaths.clear()
        self._proved = max(self._proved, lived)
        if self.seconds is None:
            return False
        self._healthy += 1
        if self._healthy < self._needed_healthy:
            return False
        self._healthy = 0
        longer = GROWTH * self.seconds
        if longer < announced:
            self.seconds = longer
        else:
            self.seconds, self._needed_healthy = None, HEALTHY_TOKENS
        return True
