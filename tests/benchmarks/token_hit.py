"""What a token that is in hand costs: the way that every request goes, apart from the relay."""

import time
from typing import Final

from proxy.credentials import CachedTokenSource, LocalSharing, MemoryTokenStore, RefreshPolicy
from proxy.credentials.token import FetchedToken
from proxy.secret import Secret
from proxy.telemetry import TokenStats

HITS: Final = 200_000


class _Issuer:
    """Gives one token that lives for an hour."""

    async def fetch(self) -> FetchedToken:
        """That token."""
        return FetchedToken(Secret("token"), 3600.0)

    async def close(self) -> None:
        """Nothing to let go of."""


async def token_hit_us(rounds: int) -> list[float]:
    """CPU microseconds of one `get` that finds its token, for each round."""
    policy = RefreshPolicy()
    sharing = LocalSharing("bench", MemoryTokenStore(), policy)
    source = CachedTokenSource("bench", _Issuer(), sharing, policy, TokenStats())
    await source.get()
    costs = []
    for _ in range(rounds):
        began = time.process_time_ns()
        for _ in range(HITS):
            await source.get()
        costs.append((time.process_time_ns() - began) / 1000 / HITS)
    await source.close()
    return costs
