"""The way to Redis: one connection pool a process, through aiocache's Redis backend.

aiocache holds the namespace; its own client knows neither user names nor TLS
settings nor Sentinel, so redis-py's is put in its place.
"""

import asyncio
import contextlib
from typing import Any, cast

import redis.asyncio
from aiocache import RedisCache

from proxy.redis_connection import (
    NAMESPACE,
    StoreUnavailable,
    build_pool,
    close_sentinels,
    translated_errors,
)
from proxy.settings import Shared

__all__ = ["RedisLink", "StoreUnavailable"]


class _NamedCache(RedisCache):  # type: ignore[misc]  # aiocache is not typed
    """aiocache's Redis cache over a client of ours."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        # Without its clock: `wait_for`, which it is made of, can lose a cancellation on Python 3.11.
        super().__init__(namespace=NAMESPACE, timeout=None)
        self.client = client

    async def _close(self, *_args: Any, **_options: Any) -> None:
        await self.client.aclose()


class RedisLink:
    """Runs scripts in Redis, each within a bounded time.

    Args:
        settings: The `[shared]` section.
    """

    def __init__(self, settings: Shared) -> None:
        pool, self._sentinels = build_pool(settings)
        self._timeout = settings.redis_timeout
        self._cache = _NamedCache(redis.asyncio.Redis.from_pool(pool))

    def key(self, name: str, part: str) -> str:
        """The key of one part of a record; the braces keep all parts on one node of a cluster."""
        return cast(str, self._cache.build_key(f"{{{name}}}:{part}"))

    async def run(self, script: str, keys: list[str], *arguments: str | int | bytes) -> list[Any]:
        """Run a Lua script, which is atomic; the list that it returns.

        Raises:
            StoreUnavailable: there was no answer, or an error instead of one.
        """
        with translated_errors():
            async with asyncio.timeout(self._timeout):
                answer = await self._cache.raw("eval", script, len(keys), *keys, *arguments)
        if answer is None:  # AIOCACHE_DISABLE=1 makes aiocache a no-op
            raise StoreUnavailable("aiocache is disabled by its environment variable")
        return cast(list[Any], answer)

    async def close(self) -> None:
        """Let go of the connections."""
        with contextlib.suppress(StoreUnavailable), translated_errors():
            await self._cache.close()
            await close_sentinels(self._sentinels)
