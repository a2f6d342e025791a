"""How often a visitor may send something: counted by session and by address, in this process or in Redis."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

from limits import parse
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter

from proxy.errors import RateLimited
from proxy.redis_connection import NAMESPACE, StoreUnavailable, build_pool, close_sentinels, translated_errors
from proxy.settings import Shared
from proxy.telemetry import get_logger

_NAMESPACE: Final = "chat"
_PREFIX: Final = f"{NAMESPACE}:limits"

_log: Final = get_logger("chat")


class VisitorRate:
    """Holds every visitor to the rate.

    Two counts, since a session is thrown away as easily as it is had, and since one address may be a whole
    office's, where each shall know when it was the one who asked too often.

    Args:
        rate: Such as `2/second`.
        storage: Where requests are counted.
    """

    def __init__(self, rate: str, storage: Storage | None = None) -> None:
        self._rate = parse(rate)
        self._limiter = MovingWindowRateLimiter(storage or MemoryStorage())

    async def count(self, session: str, address: str) -> None:
        """Count a request.

        Raises:
            RateLimited: it is one too many.
        """
        for key in (f"session:{session}", f"address:{address}"):
            if not await self._hit(key):
                raise RateLimited(await self._wait(key), reason="requests of a visitor in a time")

    async def _hit(self, key: str) -> bool:
        """Whether it fits in. Where nobody can be asked, it does: a chat without Redis has other troubles."""
        try:
            with translated_errors():
                return await self._limiter.hit(self._rate, _NAMESPACE, key)
        except StoreUnavailable as error:
            _log.warning("chat_rate_uncounted", reason=str(error))
            return True


    async def _wait(self, key: str) -> float:
        """Seconds until the next one fits in."""
        try:
            with translated_errors():
                reset, _ = await self._limiter.get_window_stats(self._rate, _NAMESPACE, key)
        except StoreUnavailable:
            return 1.0
        return max(reset - time.time(), 0.0)


@contextlib.asynccontextmanager
async def open_redis_storage(shared: Shared) -> AsyncIterator[Storage]:
    """Counts in the fleet's Redis.

    Args:
        shared: The `[shared]` section.
    """
    pool, sentinels = build_pool(shared)
    try:
        yield RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=_PREFIX,
            connection_pool=pool,  # type: ignore[arg-type]  # all options are numbers and texts there
        )
    finally:
        with contextlib.suppress(StoreUnavailable), translated_errors():
            async with asyncio.timeout(shared.redis_timeout):
                await pool.aclose()
                await close_sentinels(sentinels)
