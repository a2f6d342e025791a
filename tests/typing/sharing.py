"""A sharing obtains the token of a flight: with `obtain`, from the fetch or from another process."""

from typing import assert_type

from proxy.credentials import Sharing, Token
from proxy.credentials.sharing import Fetch, FlightContext
from proxy.credentials.sharing.local import LocalSharing, MemoryTokenStore
from proxy.credentials.token import FetchedToken


class Unshared:
    async def obtain(self, fetch: Fetch, known: FlightContext) -> Token:
        fetched = await fetch()
        assert_type(fetched, FetchedToken)
        return known.next_token(fetched, 0.0, lambda low, _high: low)

    async def look(self, known: FlightContext) -> Token | None:
        return known.current


class WithoutDeadlines:
    async def obtain(self, fetch: Fetch, known: FlightContext) -> FetchedToken:
        return await fetch()

    async def look(self, known: FlightContext) -> None:
        return None


def conform(unshared: Unshared, local: LocalSharing, store: MemoryTokenStore, raw: WithoutDeadlines) -> None:
    sharing: Sharing = unshared
    sharing = local
    sharing = store  # type: ignore[assignment]
    sharing = raw  # type: ignore[assignment]
    del sharing


async def gives_a_fetch(sharing: Sharing, fetch: Fetch, known: FlightContext) -> None:
    assert_type(await sharing.obtain(fetch, known), Token)
    await sharing.obtain(fetch(), known)  # type: ignore[arg-type]
    known.generation = 2  # type: ignore[misc]
