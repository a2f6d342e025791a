"""The stores of the chat: which ones a configuration opens, and what ends with them."""

import asyncio

import pytest

from proxy.chat.broker import BrokerClosed, SlowReader
from proxy.chat.channels import MemoryChannels
from proxy.chat.conversation import MemoryConversation, RedisConversation
from proxy.chat.conversation_list import MemoryConversationList, RedisConversationList
from proxy.chat.event import Event
from proxy.chat.memory_broker import MemoryBroker
from proxy.chat.notices import CUT_OFF
from proxy.chat.publisher import error_event
from proxy.chat.redis_broker import RedisBroker
from proxy.chat.redis_channels import RedisChannels
from proxy.chat.redis_leases import RedisLeases
from proxy.chat.stores import Stores, open_stores
from tests.chat.conftest import OpenStores, open_process, open_redis, shared
from tests.chat.readers import take_data
from tests.pace import PATIENCE
from tests.redis_server import RedisServer


def kinds(stores: Stores) -> tuple[type, ...]:
    return tuple(map(type, (stores.broker, stores.channels, stores.conversation, stores.conversations)))


async def test_without_redis_everything_is_in_this_process() -> None:
    in_memory = (MemoryBroker, MemoryChannels, MemoryConversation, MemoryConversationList)
    async with open_stores(None, None, turns=1) as stores:
        assert kinds(stores) == in_memory
    async with open_stores(shared("redis://127.0.0.1:1/0"), None, turns=1) as stores:
        assert kinds(stores) == in_memory  # there is no connection to use


async def test_with_redis_everything_is_shared(store: RedisServer) -> None:
    async with open_process(shared(store.url), turns=1) as stores:
        assert kinds(stores) == (RedisBroker, RedisChannels, RedisConversation, RedisConversationList)


async def test_leaving_the_block_ends_every_reader_and_every_task(open_both: OpenStores) -> None:
    before = asyncio.all_tasks()
    async with open_both() as (stores, _):
        reader = stores.broker.subscribe("c", None)
        subscription = await reader.__aenter__()
    with pytest.raises(BrokerClosed):
        async with asyncio.timeout(PATIENCE):
            await subscription.get()
    await reader.__aexit__(None, None, None)
    assert asyncio.all_tasks() == before


async def test_an_error_in_the_block_is_raised_unchanged(open_both: OpenStores) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_both():
            raise ZeroDivisionError


async def test_a_reader_that_falls_behind_is_cut_after_as_many_events_as_may_wait(
    open_both: OpenStores,
) -> None:
    async with open_both(queue=2) as (stores, _), stores.broker.subscribe("c", None) as reader:
        for number in range(3):
            await stores.broker.publish("c", Event(number))
        async with stores.broker.subscribe("c", "0-0") as late:
            assert await take_data(late, 3) == [0, 1, 2]
        with pytest.raises(SlowReader):
            await take_data(reader, 4)


async def test_a_dialogue_of_a_dead_process_is_ended_by_another_one(store: RedisServer) -> None:
    settings = shared(store.url)
    async with open_process(settings, turns=1) as living:
        async with open_redis(settings) as (redis, feed):
            leases = RedisLeases(redis, seconds=0.1)  # expires, because nothing renews it
            holder = await RedisChannels(redis, feed, leases).begin("c")
            dying = RedisBroker(redis, feed, leases)
            await dying.publish("c", Event({"state": "answering"}, "state_event"), holder=holder)
        async with living.broker.subscribe("c", "0-0") as reader:
            began, error, failed = await take_data(reader, 3)
    assert began == {"state": "answering"}
    assert error == error_event(CUT_OFF).data
    assert isinstance(failed, dict)
    assert failed["state"] == "failed"
