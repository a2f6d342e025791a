"""Sharing within one process: tokens are kept in aiocache's memory cache.

aiocache's decorators and locks are not used: the decorators log the value if a write fails, and its lock
lets all waiters through at once.
"""

import math
from dataclasses import replace
from typing import cast

from proxy.credentials.refresh_policy import RefreshPolicy
from proxy.credentials.sharing import Fetch, FlightContext
from proxy.credentials.token import Token
from proxy.lean_imports import without

with without("redis"):  # It imports redis-py for a store that is not used here.
    from aiocache import SimpleMemoryCache


class MemoryTokenStore:
    """A store in the memory of this process, which survives a reload."""

    def __init__(self) -> None:
        # A timeout would make aiocache start a task for each call, and memory access does not block.
        self._cache = SimpleMemoryCache(namespace="token:", timeout=None)
        self._names: set[str] = set()

    async def get(self, name: str) -> Token | None:
        return cast("Token | None", await self._cache.get(name))

    async def put(self, token: Token, name: str, now: float) -> None:
        # The TTL only frees memory: the token itself decides whether it may be used.
        remaining = token.expires_at - now
        if remaining <= 0:
            return
        await self._cache.set(name, token, ttl=remaining if math.isfinite(remaining) else None)
        self._names.add(name)

    async def close(self) -> None:
        for name in self._names:
            await self._cache.delete(name)
        self._names.clear()


class LocalSharing:
    """Shares the token of a credential within a process, also with the cached source that a reload builds.

    Args:
        name: The key in the store, which is unique for the name and the recipe of the credential.
        store: The memory of the process.
        policy: The clock and the random source.
    """

    def __init__(self, name: str, store: MemoryTokenStore, policy: RefreshPolicy) -> None:
        self._name = name
        self._store = store
        self._policy = policy

    async def obtain(self, fetch: Fetch, known: FlightContext) -> Token:
        """Return the stored token if it is better than the current one; otherwise fetch one."""
        started = self._policy.clock()
        kept = await self._store.get(self._name)
        if (
            kept is not None
            and kept.generation > known.generation
            and started < kept.refresh_at
            and known.is_better(kept, started)
        ):
            return kept
        latest = replace(known, generation=max(known.generation, kept.generation if kept else 0))
        token = latest.next_token(await fetch(), started, self._policy.uniform)
        await self._store.put(token, self._name, self._policy.clock())
        return token
