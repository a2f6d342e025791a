"""A token with its two deadlines on the monotonic clock: when to refresh it, and when it expires."""

import hashlib
import hmac
import math
import secrets
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from proxy.secret import Secret
from proxy.telemetry import TokenLife

# Fractions rather than fixed periods, because some tokens live for only a few minutes.
REFRESH_FRACTION: Final = (0.60, 0.75)
"""A token is refreshed at a random point in this part of its lifetime, so that processes do not coincide."""
LEADER_FRACTION: Final = (0.60, 0.62)
FOLLOWER_FRACTION: Final = (0.66, 0.75)
"""The process of a fleet that fetched last refreshes first, because its connection to the issuer is known to
work. The others try later."""
SKEW_FRACTION: Final = 0.05
SKEW_SECONDS_MAX: Final = 10.0
CLOCK_SKEW_FRACTION: Final = 0.10
CLOCK_SKEW_SECONDS_MAX: Final = 30.0
"""The same if the expiry is a point in time and the reply had no Date header."""
LATEST_FRACTION: Final = 0.9
"""The issuer may ask for a later refresh, but there must be time to retry it."""
SHORT_LIFE_SECONDS: Final = 2.0
"""A token with a shorter lifetime is used until it expires, and not refreshed ahead."""
_DIGEST_KEY: Final = secrets.token_bytes(32)


class LifetimeDoubt(NamedTuple):
    """A lifetime that could not be read, or that suggests a mistake in the configuration."""

    readable: bool
    reason: str
    """An explanation for the log that names the path but contains no text of the reply."""

    @property
    def event(self) -> str:
        """The event name of the log line."""
        return "token_lifetime_doubtful" if self.readable else "token_lifetime_unreadable"


class FetchedToken(msgspec.Struct, frozen=True):
    """The result of a token source.

    Args:
        secret: The token.
        lifetime: Seconds since the request was sent; infinite for a token that does not expire.
        refresh_in: Seconds after which the issuer asks for a refresh, if it does. For a token that does not
            expire, seconds after which it has to be read again.
        doubt: What looks wrong about the lifetime.
        certain: Whether the lifetime depends on the issuer's clock alone. If not, a margin covers the
            difference between its clock and ours.
    """

    secret: Secret
    lifetime: float
    refresh_in: float | None = None
    doubt: LifetimeDoubt | None = None
    certain: bool = True


class Token(msgspec.Struct, frozen=True):
    """One token of a credential. Times are monotonic seconds; lifetimes start when the request was sent."""

    secret: Secret
    generation: int
    obtained: float
    refresh_at: float
    """When to refresh the token, which is still used meanwhile."""
    expires_at: float
    """When to stop sending the token."""
    digest: bytes
    """A keyed hash of the token, to recognise the same token in two generations."""
    adopted: bool = False
    """Whether another process or credential fetched it."""
    announced: float = math.inf
    """The lifetime according to the issuer, in seconds."""
    certain: bool = True
    """See `FetchedToken`."""

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that identify the token in the logs of this process only."""
        return self.digest[:4].hex()

    @property
    def lifetime(self) -> float:
        """Seconds between its request and its expiry."""
        return self.expires_at - self.obtained

    @property
    def announced_end(self) -> float:
        """When it would no longer be sent if it lived as long as announced."""
        return self.obtained + self.announced - skew_of(self.announced, certain=self.certain)

    def life(self, now: float) -> TokenLife:
        """Return the age, and the ages at which the token is refreshed, no longer sent, and over."""
        start = self.obtained
        end = self.announced if math.isfinite(self.announced) else self.lifetime
        return TokenLife(now - start, self.refresh_at - start, self.expires_at - start, end)


def skew_of(lifetime: float, *, certain: bool = True) -> float:
    """Return for how long before its end a token is not sent, to allow for delays and clock differences."""
    if certain:
        return min(SKEW_SECONDS_MAX, SKEW_FRACTION * lifetime)
    return min(CLOCK_SKEW_SECONDS_MAX, CLOCK_SKEW_FRACTION * lifetime)


def with_deadlines(
    fetched: FetchedToken,
    *,
    generation: int,
    obtained: float,
    uniform: Callable[[float, float], float],
    spread: tuple[float, float] = REFRESH_FRACTION,
    longest: float = math.inf,
    adopted: bool = False,
) -> Token:
    """Give a fetched token its deadlines.

    `expires_at` leaves the margin of `skew_of`. `refresh_at` is at 60 to 75% of
    the lifetime, or in the same spread around the issuer's hint; for a token that does not expire, at 80 to
    100% of the hint. If the token is not refreshed ahead, the two are equal.

    Args:
        fetched: The token.
        generation: Its number.
        obtained: When the request was sent.
        uniform: Returns a random number between two bounds.
        spread: The part of the lifetime in which it is refreshed.
        longest: An upper bound for the lifetime in seconds, whatever the issuer announces.
        adopted: Whether another process or credential fetched it.
    """
    life = min(fetched.lifetime, longest)
    skew = skew_of(life, certain=fetched.certain)
    expires_at = obtained + life - skew if math.isfinite(life) else math.inf
    refresh_at = expires_at
    hint = fetched.refresh_in
    if hint is not None and not SHORT_LIFE_SECONDS <= hint < life:
        hint = None  # it cannot be followed
    centre = sum(REFRESH_FRACTION) / 2
    if math.isfinite(life) and life >= SHORT_LIFE_SECONDS:
        planned = centre * life if hint is None else hint
        latest = LATEST_FRACTION * (life - skew)
        refresh_at = obtained + min(planned * uniform(*spread) / centre, latest)
    elif hint is not None:
        refresh_at = obtained + hint * uniform(*spread) / REFRESH_FRACTION[1]
    return Token(
        secret=fetched.secret,
        generation=generation,
        obtained=obtained,
        refresh_at=refresh_at,
        expires_at=expires_at,
        digest=digest_of(fetched.secret),
        adopted=adopted,
        announced=fetched.lifetime,
        certain=fetched.certain,
    )


def shortened(token: Token, longest: float) -> Token:
    """Shorten the deadlines of a token to a lifetime in seconds; return the same token if it ends earlier."""
    obtained = token.obtained
    if obtained + longest >= token.expires_at:
        return token
    refresh_at = min(token.refresh_at, obtained + REFRESH_FRACTION[0] * longest)
    return replace(token, expires_at=obtained + longest - skew_of(longest), refresh_at=refresh_at)


def digest_of(secret: Secret) -> bytes:
    """Return a keyed hash of a token, by which two generations with the same token can be recognised."""
    return hmac.digest(_DIGEST_KEY, secret.reveal().encode(), hashlib.sha256)
