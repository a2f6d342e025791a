"""Count and time what a credential goes through."""

import asyncio
from collections.abc import Callable

from proxy.credentials.credential import Credential, FetchedToken
from proxy.credentials.sources import TokenSource, as_fetch_error
from proxy.telemetry import State, TokenStats


def state_of(current: Credential | None, now: float, *, suspect: bytes | None) -> State:
    """The state of the token in hand.

    Args:
        current: The newest one.
        now: On the clock of its deadlines.
        suspect: Digest of a token that an upstream rejected, while it is not known why.
    """
    if current is None:
        return "empty"
    if now >= current.hard:
        return "expired"
    if current.digest == suspect:
        return "suspect"
    return "stale" if now >= current.soft else "fresh"


class MeteredSource:
    """A token source whose fetches are counted, timed and bounded.

    Args:
        source: What is asked.
        stats: Where it is counted.
        timeout: Seconds for one fetch.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, source: TokenSource, stats: TokenStats, timeout: float, clock: Callable[[], float]
    ) -> None:
        self._source = source
        self._stats = stats
        self._timeout = timeout
        self._clock = clock

    async def fetch(self) -> FetchedToken:
        """Ask for a token.

        Raises:
            TimeoutError: it took too long.
            TokenFetchError: there is none to be had now.
        """
        started = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                return await self._source.fetch()
        except Exception as error:  # counted, whatever it is, and raised as it came
            if as_fetch_error(error).permanent:
                self._stats.fetches_failed_permanent += 1
            else:
                self._stats.fetches_failed_passing += 1
            raise
        finally:
            self._stats.fetches += 1
            self._stats.fetch_seconds += self._clock() - started

    async def close(self) -> None:
        """Let go of the source."""
        await self._source.close()
