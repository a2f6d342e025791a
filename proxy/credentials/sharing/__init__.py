"""Sharing of a token: among the requests of one process, or among all processes of a fleet.

A flight obtains its token from a `Sharing`, which fetches it, or adopts one that another process
fetched.
"""

import math
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from proxy.credentials.token import REFRESH_FRACTION, FetchedToken, Token, with_deadlines

Fetch = Callable[[], Awaitable[FetchedToken]]


class FlightContext(msgspec.Struct, frozen=True):
    """The state of a cached source at the start of a flight."""

    generation: int = 0
    """The number of the newest token; the next one receives a higher number."""
    current: Token | None = None
    """The token that may still be sent, if there is one."""
    rejected: frozenset[bytes] = frozenset()
    """Digests of tokens that are dead or suspect."""
    failures: int = 0
    """The number of consecutive failed flights."""
    longest: float = math.inf
    """The upper bound for the lifetime of a token, in seconds."""
    exclusive: bool = False
    """Whether a new token revokes the previous one."""

    def is_better(self, token: Token, now: float) -> bool:
        """Whether a token from another process is better than the current one.

        It is if it lives longer, or as long and is newer: two tokens without an end live equally long.
        """
        if now >= token.expires_at or token.digest in self.rejected:
            return False
        current = self.current
        if current is None:
            return True
        if self.exclusive or current.digest in self.rejected:
            return token.digest != current.digest and token.obtained > current.obtained
        return token.digest != current.digest and (token.expires_at, token.obtained) > (
            current.expires_at,
            current.obtained,
        )

    def next_token(
        self,
        fetched: FetchedToken,
        obtained: float,
        uniform: Callable[[float, float], float],
        spread: tuple[float, float] = REFRESH_FRACTION,
        *,
        adopted: bool = False,
    ) -> Token:
        """Give a fetched token its deadlines and the next generation number."""
        return with_deadlines(
            fetched,
            generation=self.generation + 1,
            obtained=obtained,
            uniform=uniform,
            spread=spread,
            longest=self.longest,
            adopted=adopted,
        )


class Sharing(Protocol):
    """Obtains tokens for flights."""

    async def obtain(self, fetch: Fetch, known: FlightContext) -> Token:
        """Return a token other than the current one, with a new generation number.

        Raises:
            TokenFetchError: No token is available.
        """

    async def look(self, known: FlightContext) -> Token | None:
        """Return a better token that somebody else has fetched, if there is one; never fetch one."""


__all__ = ["Fetch", "FlightContext", "Sharing"]
