"""Channels in Redis: their keys, and how they survive the loss of Redis, of a process or of a message."""

import asyncio

import pytest

from proxy.chat.redis_channels import STOPS, RedisChannels
from proxy.chat.redis_leases import LEASES, RedisLeases
from proxy.redis_connection import StoreUnavailable, expect
from tests.chat.conftest import open_redis, processes, shared, stopped
from tests.pace import PATIENCE
from tests.redis_server import RedisServer


async def test_over_redis_use_keeps_a_channel_owned(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, feed):
        channels = RedisChannels(redis, feed, RedisLeases(redis), owned=60)
        assert await channels.claim("c", "first")
        key = "llm-token-proxy:{c}:owner"
        await redis.run("PEXPIRE", key, 10_000)
        assert await channels.claim("c", "first")
        assert expect(int, await redis.run("PTTL", key)) > 50_000
        await redis.run("DEL", key)
        assert await channels.claim("c", "second")


async def test_session_ids_are_not_stored_in_redis(store: RedisServer) -> None:
    async with processes(1, store.url) as (process,):
        assert await process.channels.claim("c", "session-canary")
        (value,) = (await store.dump()).values()
        assert b"canary" not in value


async def test_a_lost_request_to_stop_is_found_at_the_next_renewal(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, feed), processes(1, store.url) as (there,):
        here = RedisChannels(redis, feed, RedisLeases(redis), renew=0.05)
        feed.leave(STOPS)
        assert await here.begin("c")
        await there.channels.request_stop("c")
        assert await stopped(here, "c") == "requested"


async def test_a_running_dialogue_renews_its_lease(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, feed):
        channels = RedisChannels(redis, feed, RedisLeases(redis, seconds=60), renew=0.01)
        assert await channels.begin("c")
        taken = expect(float, await redis.run("ZSCORE", LEASES, "c"))
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(stopped(channels, "c"))
            async with asyncio.timeout(PATIENCE):
                while expect(float, await redis.run("ZSCORE", LEASES, "c")) <= taken:
                    pass
            waiting.cancel()


async def test_the_lease_of_a_dead_process_expires(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, feed), processes(1, store.url) as (there,):
        here = RedisChannels(redis, feed, RedisLeases(redis, seconds=0.1), renew=0.01)
        assert await here.begin("c")
        async with asyncio.timeout(PATIENCE):
            while not await there.channels.begin("c"):
                pass
        # A process that wakes up late notices that another one has the lease, and does not release that.
        assert await stopped(here, "c") == "lost"
        await here.end("c")
        assert await here.busy("c")


async def test_an_emptied_redis_ends_no_dialogue(store: RedisServer) -> None:
    async with processes(2, store.url) as (here, there):
        assert await here.channels.begin("c")
        await store.empty()
        assert await here.channels.renew("c")
        assert not await there.channels.begin("c")


async def test_without_redis_no_dialogue_starts_and_running_ones_continue(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, feed):
        channels = RedisChannels(redis, feed, RedisLeases(redis), renew=0.02)
        assert await channels.begin("c")
        await store.stop()
        for refused in (channels.claim("c", "first"), channels.begin("d"), channels.request_stop("d")):
            with pytest.raises(StoreUnavailable):
                await refused
        assert not await channels.renew("d")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await channels.wait_for_stop("c")
        await channels.request_stop("c")  # it runs here
        assert await stopped(channels, "c") == "requested"
        await channels.end("c")
        await store.start()
        assert await channels.begin("d")
