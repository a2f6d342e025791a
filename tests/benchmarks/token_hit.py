"""What a token that is in hand costs: the way that every request goes, apart from the relay."""

import asyncio
import time
from typing import Final

from proxy.credentials import CachedTokenSource, LocalSharing, MemoryTokenStore, RefreshPolicy
from proxy.credentials.credential import FetchedToken
from proxy.secret import Secret
from proxy.telemetry import TokenStats

HITS: Final = 200_000
ROUNDS: Final = 5


class _Issuer:
    """Gives one token that lives for an hour."""

    async def fetch(self) -> FetchedToken:
        """That token."""
        return FetchedToken(Secret("token"), 3600.0)

    async def close(self) -> None:
        """Nothing to let go of."""


async def token_hit_us() -> float:
    """CPU microseconds of one `get` that finds its token, median of some rounds."""
    policy = RefreshPolicy()
    sharing = LocalSharing("bench", MemoryTokenStore(), policy)
    source = CachedTokenSource("bench", _Issuer(), sharing, policy, TokenStats())
    await source.get()
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time_ns()
        for _ in range(HITS):
            await source.get()
        rounds.append((time.process_time_ns() - began) / 1000 / HITS)
    await source.close()
    return sorted(rounds)[ROUNDS // 2]


if __name__ == "__main__":
    print(f"{asyncio.run(token_hit_us()):.2f} us")
