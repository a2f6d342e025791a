"""Count the streams that each caller has open: in this process, or for a whole fleet in Redis.

Each stream is a member of its caller's sorted set, with the time at which it expires. The process renews its
streams, so that those of a killed process stop counting soon.
"""

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final
from uuid import uuid4

from proxy.access.caller import Caller
from proxy.access.counting import REDIS_PAUSE_SECONDS
from proxy.errors import RateLimited
from proxy.redis_connection import NAMESPACE, RedisConnection, StoreUnavailable
from proxy.telemetry import get_logger

RENEW_SECONDS: Final = 10.0
LEASE_SECONDS: Final = 3 * RENEW_SECONDS
"""How long a stream is counted after its last renewal."""
ENDED_MAX: Final = 1000
"""How many streams of a caller are remembered that ended while Redis was unavailable; others expire there."""
_NO_LIMIT: Final = -1
_ADD: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, lease, ended = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 4, 3 + ended do redis.call('ZREM', KEYS[1], ARGV[i]) end
if limit >= 0 and redis.call('ZCARD', KEYS[1]) >= limit then return 0 end
for i = 4 + ended, #ARGV do redis.call('ZADD', KEYS[1], now + lease, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], lease)
return 1
"""


class StreamCounts:
    """The open streams of each caller.

    Args:
        redis: Where the streams of a fleet are counted; None to count in this process. While Redis is
            unavailable, each process counts for itself.
    """

    def __init__(self, redis: RedisConnection | None = None) -> None:
        self._redis = redis
        self._lease_ms = int(LEASE_SECONDS * 1000)
        self._process = uuid4().hex
        self._numbers = itertools.count()
        self._open: dict[str, set[str]] = {}
        """The ids of the streams of each caller."""
        self._limited: set[str] = set()
        """The callers whose streams are counted in Redis."""
        self._ended: dict[str, list[str]] = {}
        """The streams of each caller that have ended, and that Redis may still count."""
        self._redis_pause_until = -math.inf
        self.rejected: Counter[str] = Counter()
        """The number of rejected streams of each caller."""

    def running(self) -> dict[str, int]:
        """Return the number of open streams in this process, of each caller that has any."""
        return {name: len(streams) for name, streams in self._open.items() if streams}

    def counted(self, caller: Caller) -> AbstractAsyncContextManager[None]:
        """Return a context manager that counts a stream while it runs.

        Entering it raises:
            RateLimited: The caller has too many streams.
        """
        return _Counted(self, caller, f"{self._process}:{next(self._numbers)}")

    async def begin(self, caller: Caller, stream: str) -> None:
        """Count a stream.

        Raises:
            RateLimited: The caller has too many streams.
        """
        limit, name = caller.max_streams, caller.name
        streams = self._open.setdefault(name, set())
        if limit is None:
            streams.add(stream)
            return
        if len(streams) >= limit:
            raise self._rejection(name)
        streams.add(stream)  # Before anything is awaited, so that no other stream takes the place.
        is_within = False
        try:
            is_within = await self._add(name, [stream], limit)
        finally:
            if not is_within:
                await self.end(name, stream)
        if not is_within:
            raise self._rejection(name)

    async def end(self, name: str, stream: str) -> None:
        """Count a stream no longer."""
        self._open[name].discard(stream)
        if name in self._limited:
            await self._remove(name, [stream])

    async def renew(self) -> None:
        """Keep the open streams from expiring, until cancelled."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await self.renew_once()

    async def renew_once(self) -> None:
        """Renew the open streams of all callers with a limit."""
        for name in [*self._limited]:
            if self._ended.get(name):
                await self._remove(name, [])
            if streams := [*self._open[name]]:
                await self._add(name, streams)
                if ended := [stream for stream in streams if stream not in self._open[name]]:
                    await self._remove(name, ended)

    def _rejection(self, name: str) -> RateLimited:
        self.rejected[name] += 1
        return RateLimited(reason="concurrent streams")

    async def _add(self, name: str, streams: list[str], limit: int | None = None) -> bool:
        """Add streams in Redis, or renew them; return whether they are within the limit."""
        self._limited.add(name)
        at_most = _NO_LIMIT if limit is None else limit
        ended = [*self._ended.get(name, ())]
        arguments: list[str | int] = [at_most, self._lease_ms, len(ended), *ended, *streams]
        is_within = await self._ask(lambda redis: redis.run_script(_ADD, [_key(name)], *arguments))
        if is_within is None:
            return True
        self._forget_ended(name, ended)
        return bool(is_within)

    async def _remove(self, name: str, streams: list[str]) -> None:
        """Remove streams from Redis; those that cannot be removed now are removed with the next step."""
        if self._redis is None:
            return
        ended = self._ended[name] = [*self._ended.get(name, ()), *streams][-ENDED_MAX:]
        if await self._ask(lambda redis: redis.run("ZREM", _key(name), *ended)) is not None:
            self._forget_ended(name, ended)

    def _forget_ended(self, name: str, ended: list[str]) -> None:
        gone = set(ended)
        if left := [stream for stream in self._ended.get(name, ()) if stream not in gone]:
            self._ended[name] = left
        else:
            self._ended.pop(name, None)

    async def _ask(self, question: Callable[[RedisConnection], Awaitable[object]]) -> object:
        """Ask Redis; return None if it is unavailable."""
        loop = asyncio.get_running_loop()
        if self._redis is None or loop.time() < self._redis_pause_until:
            return None
        try:
            async with self._redis.bounded():
                return await question(self._redis)
        except StoreUnavailable as error:
            self._redis_pause_until = loop.time() + REDIS_PAUSE_SECONDS
            get_logger("limits").warning("counting_alone", reason=str(error), for_s=REDIS_PAUSE_SECONDS)
            return None


class _Counted(AbstractAsyncContextManager[None]):
    """A stream that is counted; a generator would cost several times as much."""

    def __init__(self, counts: StreamCounts, caller: Caller, stream: str) -> None:
        self._counts, self._caller, self._stream = counts, caller, stream

    async def __aenter__(self) -> None:
        await self._counts.begin(self._caller, self._stream)

    async def __aexit__(self, *_: object) -> None:
        await self._counts.end(self._caller.name, self._stream)


def _key(name: str) -> str:
    return f"{NAMESPACE}:streams:{name}"
