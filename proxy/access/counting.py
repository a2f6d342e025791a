"""Count requests and tokens per period: in this process, or for a whole fleet in Redis."""

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from proxy.redis_connection import CONCURRENT_COMMANDS_MAX, NAMESPACE, RedisConnection, StoreUnavailable
from proxy.telemetry import get_logger

if TYPE_CHECKING:  # The library takes 5 MB, and is imported where something is counted.
    from limits import RateLimitItem, WindowStats
    from limits.aio.storage import Storage
    from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

T = TypeVar("T")

REDIS_PAUSE_SECONDS: Final = 5.0
"""How long Redis is not used after a failure; meanwhile each process counts for itself."""


class _Limiters(NamedTuple):
    """The two ways to count, with the same storage."""

    requests: "MovingWindowRateLimiter"
    amounts: "FixedWindowRateLimiter"

    @classmethod
    def over(cls, storage: "Storage") -> "_Limiters":
        from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

        return cls(MovingWindowRateLimiter(storage), FixedWindowRateLimiter(storage))


class Counting:
    """Counters with a limit per period.

    Requests are counted in a moving window, so that a burst across the edge of a period cannot exceed the
    limit. Amounts, such as tokens, are counted in a fixed window, which starts with the first of them.

    Args:
        redis: The Redis to count in; None to count in this process. While Redis is unavailable, each process
            counts for itself, so that requests are still served.
    """

    def __init__(self, redis: RedisConnection | None = None) -> None:
        self._redis = None if redis is None else _Redis(redis)
        self._redis_pause_until = -math.inf

    @functools.cached_property
    def _local(self) -> _Limiters:
        from proxy.access.memory_counts import MemoryCounts

        return _Limiters.over(MemoryCounts())

    async def hit(self, limit: "RateLimitItem", *account: str) -> bool:
        """Count one request, and return whether it is within the limit."""
        return await self._ask(lambda limiters: limiters.requests.hit(limit, *account))

    async def add(self, limit: "RateLimitItem", *account: str, amount: int) -> None:
        """Count an amount, even if it exceeds the limit."""
        await self._ask(lambda limiters: limiters.amounts.hit(limit, *account, cost=amount))

    async def is_spent(self, limit: "RateLimitItem", *account: str) -> bool:
        """Whether amounts have reached a limit."""
        return not await self._ask(lambda limiters: limiters.amounts.test(limit, *account))

    async def requests_left(self, limit: "RateLimitItem", *account: str) -> "WindowStats":
        """Return when an account of requests is reset (seconds since the epoch), and how many are left."""
        return await self._ask(lambda limiters: limiters.requests.get_window_stats(limit, *account))

    async def amount_left(self, limit: "RateLimitItem", *account: str) -> "WindowStats":
        """Return the same for an account of amounts."""
        return await self._ask(lambda limiters: limiters.amounts.get_window_stats(limit, *account))

    async def _ask(self, question: Callable[[_Limiters], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        if self._redis is not None and loop.time() >= self._redis_pause_until:
            try:
                return await self._redis.ask(question)
            except StoreUnavailable as error:
                self._redis_pause_until = loop.time() + REDIS_PAUSE_SECONDS
                get_logger("limits").warning("counting_alone", reason=str(error), for_s=REDIS_PAUSE_SECONDS)
        return await question(self._local)


class _Redis:
    """The limiters of a whole fleet."""

    def __init__(self, redis: RedisConnection) -> None:
        from limits.aio.storage import RedisStorage

        self._redis = redis
        self._slots = asyncio.Semaphore(CONCURRENT_COMMANDS_MAX)
        options: dict[str, Any] = {"connection_pool": redis.pool}
        # The pool has the address of Redis; the URL only selects the kind of client.
        storage = RedisStorage(
            "async+redis://", implementation="redispy", key_prefix=f"{NAMESPACE}:limits", **options
        )
        self._limiters = _Limiters.over(storage)

    async def ask(self, question: Callable[[_Limiters], Awaitable[T]]) -> T:
        """Ask within the time limit, which includes the wait for a slot.

        Raises:
            StoreUnavailable: Redis did not answer in time, or answered with an error.
        """
        async with self._redis.bounded(), self._slots:
            return await question(self._limiters)
