"""The token as the service holds it: immutable, masked, with two deadlines on the monotonic clock."""

import hashlib
import hmac
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from proxy.secret import Secret

# Fractions, never fixed windows: a window of some minutes swallows a five-minute token whole.
SOFT_FRACTION: Final = (0.60, 0.75)
"""A token is refreshed at a point drawn from this part of its lifetime, so that processes drift apart."""
LEADER_FRACTION: Final = (0.60, 0.62)
FOLLOWER_FRACTION: Final = (0.66, 0.75)
"""In a fleet the process that fetched last refreshes first: its way to the issuer is known to work. The
others try only if it does not."""
SKEW_FRACTION: Final = 0.05
SKEW_SECONDS_MAX: Final = 10.0
CLOCK_SKEW_FRACTION: Final = 0.10
CLOCK_SKEW_SECONDS_MAX: Final = 30.0
"""The same where the end of a token is a point in time and the reply had no Date header."""
LATEST_FRACTION: Final = 0.9
"""An issuer's own hint may put the refresh later, but not so late that it could not be tried again."""
SHORT_LIFE_SECONDS: Final = 2.0
"""Below this there is no time to refresh ahead: such a token serves until its end, at least once."""
_DIGEST_KEY: Final = secrets.token_bytes(32)


class LifetimeDoubt(NamedTuple):
    """A lifetime that could not be read, or that looks like a mistake in the configuration."""

    readable: bool
    reason: str
    """Words for the log, with the path of the lifetime and without text of the reply."""

    @property
    def event(self) -> str:
        """The name of the log line."""
        return "token_lifetime_doubtful" if self.readable else "token_lifetime_unreadable"


@dataclass(frozen=True, slots=True)
class FetchedToken:
    """What a token source brings home.

    Args:
        secret: The token.
        lifetime: Seconds from the moment the request left; infinite for a token that does not expire.
        refresh_in: Seconds after which the issuer asks for a refresh, where it says so; of a token that does
            not expire, after which it has to be looked at again.
        doubt: What looks wrong about its lifetime.
        certain: Whether the lifetime was read by the issuer's clock alone. If not, a margin covers the
            difference between its clock and ours.
    """

    secret: Secret
    lifetime: float
    refresh_in: float | None = None
    doubt: LifetimeDoubt | None = None
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Credential:
    """One generation of a token. Times are monotonic seconds, counted from before the request left."""

    secret: Secret = field(repr=False)
    generation: int
    obtained: float
    soft: float
    """From here on it is refreshed, while it still serves."""
    hard: float
    """From here on it is never sent."""
    digest: bytes = field(repr=False)
    """Keyed hash of the token, to see whether two generations carry the same one."""
    adopted: bool = False
    """Whether another process fetched it."""
    announced: float = math.inf
    """Seconds that it lives according to its issuer."""
    certain: bool = True
    """See `FetchedToken`."""

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that stand for the token in logs; keyed by the process, useless elsewhere."""
        return self.digest[:4].hex()

    @property
    def lifetime(self) -> float:
        """Seconds between its request and its hard end."""
        return self.hard - self.obtained


def skew_of(lifetime: float, *, certain: bool = True) -> float:
    """Return the seconds before its end in which a token is not sent: clocks and networks are not exact."""
    if certain:
        return min(SKEW_SECONDS_MAX, SKEW_FRACTION * lifetime)
    return min(CLOCK_SKEW_SECONDS_MAX, CLOCK_SKEW_FRACTION * lifetime)


def mint(
    fetched: FetchedToken,
    *,
    generation: int,
    obtained: float,
    uniform: Callable[[float, float], float],
    spread: tuple[float, float] = SOFT_FRACTION,
    longest: float = math.inf,
    adopted: bool = False,
) -> Credential:
    """Give a fetched token its deadlines.

    `hard` leaves a skew of 5% of the lifetime, ten seconds at most; `soft` lies at 60 to 75% of it, or within
    the same spread around the issuer's own hint; without an end, at 80 to 100% of the hint, never after it.
    Where nothing is refreshed ahead, `soft` is `hard`.

    Args:
        fetched: The token.
        generation: Its number here.
        obtained: When its request left.
        uniform: Draws between two bounds.
        spread: The part of the lifetime in which it is refreshed.
        longest: Seconds that it is believed to live at most, whatever its issuer says.
        adopted: Whether another process fetched it.
    """
    life = min(fetched.lifetime, longest)
    skew = skew_of(life, certain=fetched.certain)
    hard = obtained + life - skew if math.isfinite(life) else math.inf
    soft = hard
    hint = fetched.refresh_in
    if hint is not None and not SHORT_LIFE_SECONDS <= hint < life:
        hint = None  # not one that could be followed
    centre = sum(SOFT_FRACTION) / 2
    if math.isfinite(life) and life >= SHORT_LIFE_SECONDS:
        planned = centre * life if hint is None else hint
        latest = LATEST_FRACTION * (life - skew)
        soft = obtained + min(planned * uniform(*spread) / centre, latest)
    elif hint is not None:
        soft = obtained + hint * uniform(*spread) / SOFT_FRACTION[1]
    return Credential(
        secret=fetched.secret,
        generation=generation,
        obtained=obtained,
        soft=soft,
        hard=hard,
        digest=digest_of(fetched.secret),
        adopted=adopted,
        announced=fetched.lifetime,
        certain=fetched.certain,
    )


def digest_of(secret: Secret) -> bytes:
    """Return a keyed hash of a token, by which two generations with the same token are known."""
    return hmac.digest(_DIGEST_KEY, secret.reveal().encode(), hashlib.sha256)
