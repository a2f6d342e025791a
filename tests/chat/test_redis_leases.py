"""The leases in Redis: who holds one, when it lapses, and that none is lost with Redis."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.chat.redis_leases import LOST, STOPPING, RedisLeases, ended_key, lease_key
from proxy.redis_connection import RedisConnection
from tests.chat.conftest import connection, shared
from tests.pace import PATIENCE
from tests.redis_server import RedisServer


@pytest.fixture
async def redis(store: RedisServer) -> AsyncIterator[RedisConnection]:
    """Open a connection to a running Redis."""
    async with connection(shared(store.url)) as opened:
        yield opened


async def test_a_lease_has_one_holder_until_it_is_released(redis: RedisConnection) -> None:
    leases = RedisLeases(redis)
    assert await leases.take("c", "one")
    assert not await leases.take("c", "two")
    assert await leases.renew("c", "two") == LOST
    await leases.release("c", "two")  # not its own
    assert await leases.held("c")
    await leases.release("c", "one")
    assert not await leases.held("c")
    assert await leases.take("c", "two")


async def test_a_holder_that_has_ended_cannot_come_back(redis: RedisConnection) -> None:
    leases = RedisLeases(redis)
    assert await leases.take("c", "one")
    await leases.release("c", "one")
    assert await leases.renew("c", "one") == LOST
    assert not await leases.held("c")


async def test_a_lease_that_redis_lost_is_taken_again_by_its_holder(
    redis: RedisConnection, store: RedisServer
) -> None:
    leases = RedisLeases(redis)
    assert await leases.take("c", "one")
    await store.empty()
    assert await leases.renew("c", "one") not in {LOST, STOPPING}
    assert not await leases.take("c", "two")


async def test_a_requested_stop_is_in_the_lease(redis: RedisConnection) -> None:
    leases = RedisLeases(redis)
    await leases.request_stop("c", "stops")  # nothing to stop
    assert not await leases.held("c")
    assert await leases.take("c", "one")
    await leases.request_stop("c", "stops")
    assert await leases.renew("c", "one") == STOPPING


async def test_a_lapsed_lease_keeps_the_channel_busy(redis: RedisConnection) -> None:
    leases = RedisLeases(redis, seconds=0.01)
    assert await leases.take("c", "one")
    async with asyncio.timeout(PATIENCE):
        while await leases.lapsed() != ["c"]:
            pass
    assert await leases.held("c")
    assert not await leases.take("c", "two")


async def test_a_release_before_the_end_was_published_lapses_instead(redis: RedisConnection) -> None:
    leases = RedisLeases(redis, seconds=3600)
    assert await leases.take("c", "one")
    await redis.run("HSET", lease_key("c"), "open", 1)  # as publishing does
    await leases.release("c", "one")
    assert await leases.lapsed() == ["c"]
    assert await leases.held("c")
    assert not await redis.run("EXISTS", ended_key("c", "one"))
