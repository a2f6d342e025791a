"""The rate of a visitor, by session and by address: in memory, in Redis, and while Redis is unavailable."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.access.counting import Counting
from proxy.chat.visitor_limits import VisitorRate
from proxy.errors import RateLimited
from proxy.redis_connection import RedisConnection
from proxy.secret import Secret
from proxy.settings import Shared
from tests.pace import PATIENCE
from tests.redis_server import RedisServer, redis_server


@asynccontextmanager
async def over_redis(folder: Path, rate: str) -> AsyncIterator[tuple[VisitorRate, RedisServer]]:
    async with redis_server(folder) as server:
        shared = Shared(
            redis_url=Secret(server.url), encryption_key=Secret("11" * 32), redis_timeout=PATIENCE
        )
        redis = RedisConnection(shared)
        yield VisitorRate(rate, Counting(redis)), server
        await redis.close()


async def passes(rate: VisitorRate, session: str, address: str) -> bool:
    try:
        await rate.count(session, address)
    except RateLimited:
        return False
    return True


async def check(rate: VisitorRate) -> None:
    assert [await passes(rate, "a", "1") for _ in range(3)] == [True, True, False]
    assert not await passes(rate, "b", "1")  # a new session of the same address
    assert not await passes(rate, "a", "2")  # the same session from elsewhere
    assert await passes(rate, "b", "3")


async def test_sessions_and_addresses_are_limited_in_memory() -> None:
    await check(VisitorRate("2/hour"))


async def test_sessions_and_addresses_are_limited_in_redis(tmp_path: Path) -> None:
    async with over_redis(tmp_path, "2/hour") as (rate, _):
        await check(rate)


async def test_the_error_contains_the_time_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    rate = VisitorRate("1/second")
    await rate.count("a", "1")
    with pytest.raises(RateLimited) as refused:
        await rate.count("a", "1")
    assert refused.value.headers["Retry-After"] == "1"


async def test_without_redis_each_process_counts_for_itself(tmp_path: Path) -> None:
    async with over_redis(tmp_path, "1/hour") as (rate, server):
        await server.stop()
        assert [await passes(rate, "a", "1") for _ in range(2)] == [True, False]
