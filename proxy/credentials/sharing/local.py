"""Sharing within one process: tokens are kept in aiocache's memory cache.

aiocache's decorators and locks are not used: the decorators log the value if a write fails, and its lock
lets all waiters through at once.
"""

import asyncio
import contextlib
import math
from collections.abc import Iterator
from typing import Final, cast

from msgspec.structs import replace

from proxy.credentials.refresh_policy import RefreshPolicy
from proxy.credentials.sharing import Fetch, FlightContext
from proxy.credentials.token import Token, shortened
from proxy.lean_imports import without
from proxy.telemetry import TokenStats

with without("redis"):  # It imports redis-py for a store that is not used here.
    from aiocache import SimpleMemoryCache

HOLD_SECONDS: Final = 5.0
"""How long a fetch may keep others waiting, if tokens are independent."""


class MemoryTokenStore:
    """A store in the memory of this process, which survives a reload."""

    def __init__(self) -> None:
        # A timeout would make aiocache start a task for each call, and memory access does not block.
        self._cache = SimpleMemoryCache(namespace="token:", timeout=None)
        self._names: set[str] = set()
        self._fetches: dict[str, asyncio.Future[None]] = {}
        """The ends of the fetches in progress."""

    async def get(self, name: str) -> Token | None:
        return cast("Token | None", await self._cache.get(name))

    async def put(self, token: Token, name: str, now: float) -> None:
        # The TTL only frees memory: the token itself decides whether it may be used.
        remaining = token.expires_at - now
        if remaining <= 0:
            return
        await self._cache.set(name, token, ttl=remaining if math.isfinite(remaining) else None)
        self._names.add(name)

    def fetch_in_progress(self, name: str) -> asyncio.Future[None] | None:
        """Return the end of a fetch that is in progress on the running event loop."""
        end = self._fetches.get(name)
        return end if end is not None and end.get_loop() is asyncio.get_running_loop() else None

    @contextlib.contextmanager
    def fetching(self, name: str) -> Iterator[None]:
        """Announce a fetch for as long as the block runs, however it ends."""
        end = self._fetches[name] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            if self._fetches.get(name) is end:  # Another fetch has begun if this one took too long.
                del self._fetches[name]
            end.set_result(None)

    async def close(self) -> None:
        for name in self._names:
            await self._cache.delete(name)
        self._names.clear()


class LocalSharing:
    """Shares a token within a process: among credentials with the same request, and across reloads.

    While one of them fetches, the others wait for the end of that fetch, but not for its task: whichever is
    cancelled does not affect the others.

    Args:
        name: The key in the store, which identifies the request for the token.
        store: The memory of the process.
        policy: The clock and the random source.
        stats: Counters.
    """

    def __init__(self, name: str, store: MemoryTokenStore, policy: RefreshPolicy, stats: TokenStats) -> None:
        self._name = name
        self._store = store
        self._policy = policy
        self._stats = stats
        self._hold = None if policy.exclusive else HOLD_SECONDS

    async def obtain(self, fetch: Fetch, known: FlightContext) -> Token:
        """Return the stored token if it is better than the current one; otherwise fetch one."""
        kept = await self._store.get(self._name)
        while (adopted := self._adopt(kept, known)) is None:
            if (end := self._store.fetch_in_progress(self._name)) is None or not await self._ends(end):
                break
            kept = await self._store.get(self._name)
        if adopted is not None:
            self._stats.adopted += 1
            return adopted
        latest = replace(known, generation=max(known.generation, kept.generation if kept else 0))
        with self._store.fetching(self._name):
            started = self._policy.clock()
            token = latest.next_token(await fetch(), started, self._policy.uniform)
            await self._store.put(token, self._name, self._policy.clock())
        return token

    async def look(self, known: FlightContext) -> Token | None:
        """Return the stored token if it is better than the current one."""
        return self._adopt(await self._store.get(self._name), known)

    def _adopt(self, kept: Token | None, known: FlightContext) -> Token | None:
        """Return the stored token with a new generation number if it is better than the current one."""
        now = self._policy.clock()
        token = None if kept is None else shortened(kept, known.longest)
        if token is None or now >= token.refresh_at or not known.is_better(token, now):
            return None
        return replace(token, generation=max(token.generation, known.generation + 1), adopted=True)

    async def _ends(self, end: asyncio.Future[None]) -> bool:
        """Wait for the end of another fetch, and return whether it came in time."""
        waiting_since = self._policy.clock()
        try:
            await asyncio.wait([end], timeout=self._hold)
        finally:
            self._stats.lease_wait_seconds += self._policy.clock() - waiting_since
        return end.done()
