"""Counters of requests and amounts: in this process, in Redis, and while Redis is unavailable."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from limits import parse
from structlog.testing import capture_logs

from proxy.access import counting as module
from proxy.access.counting import Counting
from proxy.redis_connection import RedisConnection
from proxy.secret import Secret
from proxy.settings import Shared
from tests.redis_server import RedisServer, redis_server
from tests.virtual_time import leap

SEALING = Secret("0" * 64)
REDIS_TIMEOUT = 20.0


@asynccontextmanager
async def counting_in(server: RedisServer) -> AsyncIterator[Counting]:
    """Count in Redis over a new connection, which is closed at the end."""
    shared = Shared(redis_url=Secret(server.url), encryption_key=SEALING, redis_timeout=REDIS_TIMEOUT)
    redis = RedisConnection(shared)
    yield Counting(redis)
    await redis.close()


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A real Redis."""
    async with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(params=["local", "redis"])
async def counting(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Counting]:
    """Both kinds of counters."""
    if request.param == "local":
        yield Counting()
        return
    async with redis_server(tmp_path) as server, counting_in(server) as counting:
        yield counting


async def times(count: int, ask: Callable[[], Awaitable[bool]]) -> list[bool]:
    """Ask several times, and return the results."""
    return [await ask() for _ in range(count)]


async def test_requests_are_accepted_up_to_the_limit(counting: Counting) -> None:
    limit = parse("3/hour")
    assert await times(4, lambda: counting.hit(limit, "requests", "a")) == [True, True, True, False]
    assert await counting.hit(limit, "requests", "b")
    assert (await counting.requests_left(limit, "requests", "a")).remaining == 0


async def test_amounts_add_up_and_may_overshoot(counting: Counting) -> None:
    limit = parse("100/day")
    assert not await counting.is_spent(limit, "tokens", "a")
    await counting.add(limit, "tokens", "a", amount=99)
    assert not await counting.is_spent(limit, "tokens", "a")
    assert (await counting.amount_left(limit, "tokens", "a")).remaining == 1
    await counting.add(limit, "tokens", "a", amount=500)
    assert await counting.is_spent(limit, "tokens", "a")
    assert (await counting.amount_left(limit, "tokens", "a")).remaining == 0


async def test_two_processes_share_their_accounts(redis: RedisServer) -> None:
    async with counting_in(redis) as one, counting_in(redis) as other:
        limit = parse("10/hour")
        async with asyncio.TaskGroup() as group:
            hits = [group.create_task(c.hit(limit, "requests", "a")) for c in (one, other) for _ in range(10)]
        assert sum(hit.result() for hit in hits) == 10
        await one.add(limit, "tokens", "a", amount=10)
        assert await other.is_spent(limit, "tokens", "a")


async def test_every_key_in_redis_expires(redis: RedisServer) -> None:
    async with counting_in(redis) as counting:
        await counting.hit(parse("10/hour"), "requests", "a")
        await counting.add(parse("10/hour"), "tokens", "a", amount=3)
        lifetimes = await redis.lifetimes()
        assert len(lifetimes) == 2
        assert all(key.startswith(b"llm-token-proxy:limits") for key in lifetimes)
        assert all(0 < seconds <= 3600 for seconds in lifetimes.values())


async def test_without_redis_each_process_counts_for_itself(redis: RedisServer) -> None:
    async with counting_in(redis) as counting:
        limit = parse("2/hour")
        await counting.hit(limit, "requests", "a")
        await redis.stop()
        with capture_logs() as lines:
            assert await times(3, lambda: counting.hit(limit, "requests", "a")) == [True, True, False]
        assert [line["event"] for line in lines] == ["counting_alone"]  # logged once; then Redis is not tried


async def test_redis_is_retried_after_a_while(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REDIS_PAUSE_SECONDS", 0.0)
    async with counting_in(redis) as counting:
        limit = parse("2/hour")
        await redis.stop()
        assert await counting.hit(limit, "requests", "a")
        await redis.start()
        assert await times(3, lambda: counting.hit(limit, "requests", "a")) == [True, True, False]
        assert len(await redis.lifetimes()) == 1


async def test_a_silent_redis_delays_only_the_first_request(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REDIS_PAUSE_SECONDS", REDIS_TIMEOUT)  # no longer than the wait for Redis
    async with counting_in(redis) as counting:
        limit = parse("2/hour")
        await counting.hit(limit, "requests", "a")
        redis.pause()
        try:
            with capture_logs() as lines:
                async with asyncio.TaskGroup() as group:
                    group.create_task(counting.hit(limit, "requests", "a"))
                    await asyncio.sleep(0)
                    leap(monkeypatch, REDIS_TIMEOUT)
                for _ in range(50):
                    await counting.hit(limit, "requests", "a")
        finally:
            redis.resume()
    assert [line["event"] for line in lines] == ["counting_alone"]
