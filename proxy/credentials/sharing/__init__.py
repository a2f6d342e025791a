"""Who shares a token: the requests of one process, or a whole fleet.

A flight asks its sharing for a credential. What it gets was either fetched, or is what somebody else fetched
in the meantime.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from proxy.credentials.credential import Credential, FetchedToken

Fetch = Callable[[], Awaitable[FetchedToken]]


@dataclass(frozen=True, slots=True)
class Known:
    """What a cached source has in hand when a flight leaves."""

    generation: int
    """Of the newest credential that it has seen; the next one gets a higher number."""
    current: Credential | None
    """The credential that may still be sent."""
    rejected: frozenset[bytes]
    """Digests of tokens that the upstream refused."""
    failures: int
    """Flights that failed in a row."""

    def is_news(self, credential: Credential, now: float) -> bool:
        """Whether a credential that somebody else brought is better than the one in hand."""
        if now >= credential.hard or credential.digest in self.rejected:
            return False
        return self.current is None or (
            credential.digest != self.current.digest and credential.hard > self.current.hard
        )


class Sharing(Protocol):
    """Where a flight gets its credential."""

    async def bring(self, fetch: Fetch, known: Known) -> Credential:
        """A credential that is not the one in hand, as a generation of its own.

        Raises:
            TokenFetchError: there is none to be had now.
        """


__all__ = ["Fetch", "Known", "Sharing"]
