"""Sharing within one process: credentials are kept in aiocache's memory cache.

aiocache's decorators and locks are not used: the decorators log the value if a write fails, and its lock
lets all waiters through at once.
"""

import math
from dataclasses import replace
from typing import cast

from aiocache import SimpleMemoryCache

from proxy.credentials.credential import Credential
from proxy.credentials.refresh_policy import RefreshPolicy
from proxy.credentials.sharing import Fetch, FlightContext


class MemoryTokenStore:
    """A store in the memory of this process, which survives a reload."""

    def __init__(self) -> None:
        # A timeout would make aiocache start a task for each call, and memory access does not block.
        self._cache = SimpleMemoryCache(namespace="token:", timeout=None)
        self._names: set[str] = set()

    async def get(self, name: str) -> Credential | None:
        return cast("Credential | None", await self._cache.get(name))

    async def put(self, credential: Credential, name: str, now: float) -> None:
        # The TTL only frees memory: the credential itself decides whether it may be used.
        remaining = credential.expires_at - now
        if remaining <= 0:
            return
        await self._cache.set(name, credential, ttl=remaining if math.isfinite(remaining) else None)
        self._names.add(name)

    async def close(self) -> None:
        for name in self._names:
            await self._cache.delete(name)
        self._names.clear()


class LocalSharing:
    """Shares a credential within a process, also with the cached source that a reload builds for it.

    Args:
        name: The key in the store, which is unique for the name and the recipe of the credential.
        store: The memory of the process.
        policy: The clock and the random source.
    """

    def __init__(self, name: str, store: MemoryTokenStore, policy: RefreshPolicy) -> None:
        self._name = name
        self._store = store
        self._policy = policy

    async def obtain(self, fetch: Fetch, known: FlightContext) -> Credential:
        """Return the stored credential if it is better than the current one; otherwise fetch one."""
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
        credential = latest.next_credential(await fetch(), started, self._policy.uniform)
        await self._store.put(credential, self._name, self._policy.clock())
        return credential
