"""How long to wait after a failed fetch, and how often a token may be refreshed by force (pure)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FIRST_DELAY_SECONDS: Final = 0.5
DELAY_SECONDS_MAX: Final = 15.0
DELAY_WITHOUT_TOKEN_SECONDS: Final = (1.0, 1.5)
"""Callers are failing: probe about once a second, so that service is back soon after the issuer."""
DELAY_PERMANENT_SECONDS: Final = (30.0, 60.0)
RETRY_AFTER_SECONDS_MAX: Final = 60.0
COOLDOWN_SECONDS: Final = 5.0
COOLDOWN_SECONDS_MAX: Final = 60.0

Uniform = Callable[[float, float], float]


class TokenFetchError(Exception):
    """A token source brought no token.

    Args:
        reason: Words for the log: what was asked, what happened, what to do. Never a secret, never text of a
            reply.
        permanent: The issuer refused us: asking again soon is useless, though it is asked again for ever.
        retry_after: Seconds the issuer asked to wait.
    """

    def __init__(self, reason: str, *, permanent: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
        self.retry_after = retry_after


def as_fetch_error(error: BaseException) -> TokenFetchError:
    """Whatever a token source raised, in words fit for the log."""
    if isinstance(error, TokenFetchError):
        return error
    if isinstance(error, TimeoutError):
        return TokenFetchError("the token source did not answer in time")
    return TokenFetchError(f"the token source failed: {type(error).__name__}")


def retry_delay(error: TokenFetchError, failures: int, remaining: float | None, uniform: Uniform) -> float:
    """Seconds until the next attempt.

    Args:
        error: The failure.
        failures: How many in a row, this one included.
        remaining: Seconds that the token in hand is still good for, None where there is none.
        uniform: Draws between two bounds.
    """
    if error.retry_after is not None:
        return min(max(error.retry_after, FIRST_DELAY_SECONDS), RETRY_AFTER_SECONDS_MAX)
    if error.permanent:
        return uniform(*DELAY_PERMANENT_SECONDS)
    if remaining is None:
        return uniform(*DELAY_WITHOUT_TOKEN_SECONDS)
    # With the floor, for a quarter of what remains, again and again, is more and more attempts up to the end.
    ceiling = min(DELAY_SECONDS_MAX, FIRST_DELAY_SECONDS * 2.0 ** min(failures, 16), remaining / 4)
    ceiling = max(ceiling, FIRST_DELAY_SECONDS)
    return uniform(ceiling / 2, ceiling)


@dataclass(slots=True)
class ForcedRefreshLimit:
    """Bound the refreshes that rejections may force: the first at once, then 5 s apart, doubling to 60 s.

    Else a caller without permission, whom the upstream answers 401 for ever, would cost a fetch a request.
    """

    until: float = -1.0
    cooldown: float = 0.0

    def allows(self, now: float) -> bool:
        """Whether a forced refresh may start now."""
        return now >= self.until

    def spend(self, now: float) -> None:
        """One was made: the next one has to wait."""
        quiet = now - self.until > self.cooldown
        self.cooldown = (
            COOLDOWN_SECONDS if quiet or not self.cooldown else min(self.cooldown * 2, COOLDOWN_SECONDS_MAX)
        )
        self.until = now + self.cooldown
