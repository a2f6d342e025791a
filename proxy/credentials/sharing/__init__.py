"""Who shares a token: the requests of one process, or all processes of a fleet.

A flight asks its sharing for a credential, which was either fetched, or fetched by another process meanwhile.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from proxy.credentials.credential import Credential, FetchedToken

Fetch = Callable[[], Awaitable[FetchedToken]]


@dataclass(frozen=True, slots=True)
class Known:
    """What a cached source knows when a flight leaves."""

    generation: int = 0
    """Of the newest credential that it has seen; the next one gets a higher number."""
    current: Credential | None = None
    """The credential that may still be sent."""
    rejected: frozenset[bytes] = frozenset()
    """Digests of tokens that are dead, or that a rejection made suspect."""
    failures: int = 0
    """Flights that failed in a row."""
    longest: float = math.inf
    """Seconds that a token is believed to live at most."""

    def is_news(self, credential: Credential, now: float) -> bool:
        """Whether a credential that another process fetched is better than the one in hand."""
        if now >= credential.hard or credential.digest in self.rejected:
            return False
        current = self.current
        if current is None:
            return True
        if current.digest in self.rejected:
            return credential.obtained > current.obtained
        return credential.digest != current.digest and credential.hard > current.hard


class Sharing(Protocol):
    """Where a flight gets its credential."""

    async def bring(self, fetch: Fetch, known: Known) -> Credential:
        """Return a credential that is not the one in hand, as a generation of its own.

        Raises:
            TokenFetchError: there is none to be had now.
        """


__all__ = ["Fetch", "Known", "Sharing"]
