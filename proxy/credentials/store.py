"""Where credentials are kept beside the state machine: the only door to aiocache.

A flight looks here before it fetches, so that a machine built anew (a reload, a restart of the services) goes
on with the token that is there. Decorators and locks of aiocache are not used: its decorators log the value
when a write fails, and its lock lets every waiter through at once.
"""

import math
from typing import cast

from aiocache import SimpleMemoryCache

from proxy.credentials.credential import Credential


class MemoryTokenStore:
    """A store in this process, on aiocache's memory cache."""

    def __init__(self) -> None:
        # Without a timeout of aiocache's own, which would make a task a call; memory does not block.
        self._cache = SimpleMemoryCache(namespace="token:", timeout=None)
        self._names: set[str] = set()

    async def get(self, name: str) -> Credential | None:
        return cast("Credential | None", await self._cache.get(name))

    async def put(self, credential: Credential, name: str, now: float) -> None:
        # The lifetime is only for tidiness: whether a token may be used is decided by the credential itself.
        remaining = credential.hard - now
        if remaining <= 0:
            return
        await self._cache.set(name, credential, ttl=remaining if math.isfinite(remaining) else None)
        self._names.add(name)

    async def close(self) -> None:
        for name in self._names:
            await self._cache.delete(name)
        self._names.clear()
