"""A class with `fetch` and `close` is a token source; a cached source makes credentials of its tokens."""

from typing import assert_type

from proxy.credentials import CachedTokenSource, RefreshPolicy, Sharing, Token
from proxy.credentials.sources import TokenSource
from proxy.credentials.token import FetchedToken
from proxy.secret import Secret
from proxy.telemetry import TokenStats


class Constant:
    async def fetch(self) -> FetchedToken:
        return FetchedToken(Secret("token"), lifetime=300.0)

    async def close(self) -> None: ...


class Unconnected(TokenSource):
    async def fetch(self) -> FetchedToken:
        return FetchedToken(Secret("token"), lifetime=300.0)


class Untimed:
    async def fetch(self) -> str:
        return "token"

    async def close(self) -> None: ...


class Blocking:
    def fetch(self) -> FetchedToken:
        return FetchedToken(Secret("token"), lifetime=300.0)

    def close(self) -> None: ...


def conform(constant: Constant, unconnected: Unconnected, untimed: Untimed, blocking: Blocking) -> None:
    source: TokenSource = constant
    source = unconnected
    source = untimed  # type: ignore[assignment]
    source = blocking  # type: ignore[assignment]
    del source


async def are_cached(sharing: Sharing, policy: RefreshPolicy, stats: TokenStats) -> None:
    FetchedToken("token", lifetime=300.0)  # type: ignore[arg-type]
    cached = CachedTokenSource("corp", Constant(), sharing, policy, stats)
    assert_type(await cached.get(), Token)
