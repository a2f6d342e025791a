"""Dialogues of dead processes: another process ends them, unless their leases are renewed."""

import asyncio

import pytest
from structlog.testing import capture_logs

from proxy.chat.event import Event
from proxy.chat.orphans import OrphanWatch
from proxy.chat.redis_broker import RedisBroker
from proxy.chat.redis_channels import RedisChannels
from proxy.chat.redis_leases import LEASES, RedisLeases, lease_key
from proxy.redis_connection import RedisConnection
from tests.chat.conftest import open_redis, shared
from tests.chat.readers import is_silent, take_data
from tests.loopback import until
from tests.pace import PATIENCE
from tests.redis_server import RedisServer

ENDING = (Event("error"), Event({"state": "failed"}, "state_event"))
QUESTION = Event({"message": "<div>?</div>"}, "message_event")
ANSWERING = Event({"state": "answering"}, "state_event")


async def watch(redis: RedisConnection, broker: RedisBroker) -> None:
    """Look for orphans without long pauses."""
    await OrphanWatch(RedisLeases(redis, seconds=0.1), broker, ENDING, pause=0.02).run()


async def gone(redis: RedisConnection, channel: str) -> None:
    """Wait until a channel has no lease."""
    async with asyncio.timeout(PATIENCE):
        while await redis.run("EXISTS", lease_key(channel)):
            pass


async def test_an_answer_without_a_living_process_is_ended_once(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, feed), asyncio.TaskGroup() as group:
        leases = RedisLeases(redis, seconds=0.1)
        broker = RedisBroker(redis, feed, leases)
        holder = await RedisChannels(redis, feed, leases).begin("c")
        await broker.publish("c", ANSWERING, holder=holder)
        watching = [group.create_task(watch(redis, broker)) for _ in range(2)]
        async with broker.subscribe("c", "0-0") as reader:
            assert await take_data(reader, 3) == [ANSWERING.data, "error", {"state": "failed"}]
            assert await is_silent(reader, 0.3)
        for task in watching:
            task.cancel()


async def test_a_lease_under_which_nothing_was_published_is_released_silently(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, feed), asyncio.TaskGroup() as group:
        leases = RedisLeases(redis, seconds=0.1)
        broker = RedisBroker(redis, feed, leases)
        assert await RedisChannels(redis, feed, leases).begin("c")
        watching = group.create_task(watch(redis, broker))
        await gone(redis, "c")
        assert not await broker.has_events("c")
        watching.cancel()


async def test_an_answer_whose_lease_is_renewed_continues(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, feed), asyncio.TaskGroup() as group:
        leases = RedisLeases(redis, seconds=60)
        broker = RedisBroker(redis, feed, leases)
        channels = RedisChannels(redis, feed, leases)
        holder = await channels.begin("c")
        await broker.publish("c", ANSWERING, holder=holder)
        watching = group.create_task(watch(redis, broker))
        async with broker.subscribe("c", "0-0") as reader:
            await take_data(reader, 1)
            assert await is_silent(reader, 0.3)
        assert await channels.renew("c")
        watching.cancel()


async def test_a_lease_that_cannot_be_ended_does_not_keep_others_from_being_ended(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, feed), asyncio.TaskGroup() as group:
        leases = RedisLeases(redis, seconds=0.1)
        broker = RedisBroker(redis, feed, leases)
        await redis.run("SET", lease_key("a"), "of another type")
        await redis.run("ZADD", LEASES, 1, "a")
        assert await RedisChannels(redis, feed, leases).begin("c")
        with capture_logs() as lines:
            watching = group.create_task(watch(redis, broker))
            await gone(redis, "c")
            await gone(redis, "a")
            watching.cancel()
        assert await RedisChannels(redis, feed, leases).begin("a"), "the channel is not busy for ever"
    assert [line["event"] for line in lines].count("chat_orphan_not_ended") == 1


async def test_leases_of_another_form_are_logged_once_and_do_not_end_the_watch(
    store: RedisServer,
) -> None:
    async with open_redis(shared(store.url)) as (redis, feed), asyncio.TaskGroup() as group:
        leases = RedisLeases(redis, seconds=0.1)
        broker = RedisBroker(redis, feed, leases)
        await redis.run("SET", LEASES, "of another type")
        with capture_logs() as lines:
            watching = group.create_task(watch(redis, broker))
            await until(lambda: bool(lines))
            await redis.run("DEL", LEASES)
            await redis.run("ZADD", LEASES, 1, b"\xff")
            assert await RedisChannels(redis, feed, leases).begin("c")
            await gone(redis, "c")
            watching.cancel()
        assert await redis.run("ZSCORE", LEASES, b"\xff") is None, "it took a place in every batch"
    # The watch may end the dialogue's lease before it logs that.
    assert [line["event"] for line in lines][:2] == ["chat_leases_unreadable", "chat_entry_unreadable"]


@pytest.mark.parametrize("last", [QUESTION, ANSWERING], ids=["question", "state"])
async def test_a_dialogue_whose_lease_redis_has_lost_gets_one_and_is_ended(
    store: RedisServer, last: Event
) -> None:
    async with open_redis(shared(store.url)) as (redis, feed), asyncio.TaskGroup() as group:
        leases = RedisLeases(redis, seconds=0.1)
        broker = RedisBroker(redis, feed, leases)
        holder = await RedisChannels(redis, feed, leases).begin("c")
        async with broker.subscribe("c", "0-0") as reader:
            await broker.publish("c", last, holder=holder)
            assert await take_data(reader, 1) == [last.data]
            await store.empty()
            watching = group.create_task(watch(redis, broker))
            assert await take_data(reader, 2) == ["error", {"state": "failed"}]
            watching.cancel()


async def test_a_message_of_flask_sse_begins_no_dialogue(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, feed):
        broker = RedisBroker(redis, feed, RedisLeases(redis, seconds=0.1))
        async with broker.subscribe("c", None) as reader:
            await redis.run("PUBLISH", "c", QUESTION.envelope())
            assert await take_data(reader, 1) == [QUESTION.data]
            await broker.reopen_unfinished()
            assert not await redis.run("EXISTS", lease_key("c"))
