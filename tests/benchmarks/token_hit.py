"""The cost of a cached token, which every request pays, without the relay."""

import time
from typing import Final

from proxy.credentials import CachedTokenSource, LocalSharing, MemoryTokenStore, RefreshPolicy
from proxy.credentials.token import FetchedToken
from proxy.secret import Secret
from proxy.telemetry import TokenStats

HITS: Final = 200_000


class _Issuer:
    """A source whose only token is valid for an hour."""

    async def fetch(self) -> FetchedToken:
        """Return the token."""
        return FetchedToken(Secret("token"), 3600.0)

    async def close(self) -> None:
        """Do nothing."""


async def token_hit_us(rounds: int) -> list[float]:
    """Return the CPU microseconds of one `get` of a cached token, for each round."""
    policy, stats = RefreshPolicy(), TokenStats()
    sharing = LocalSharing("bench", MemoryTokenStore(), policy, stats)
    source = CachedTokenSource("bench", _Issuer(), sharing, policy, stats)
    await source.get()
    costs = []
    for _ in range(rounds):
        began = time.process_time_ns()
        for _ in range(HITS):
            await source.get()
        costs.append((time.process_time_ns() - began) / 1000 / HITS)
    await source.close()
    return costs
