"""A broker publishes the events of channels, in memory or over Redis, whose replies are checked."""

from collections.abc import Sequence
from typing import assert_type

from proxy.chat.broker import Broker, Subscription
from proxy.chat.event import Event
from proxy.chat.memory_broker import MemoryBroker
from proxy.chat.redis_broker import Backlog, RedisBroker
from proxy.redis_connection import RedisConnection, expect, expect_list


def conform(memory: MemoryBroker, over_redis: RedisBroker, backlog: Backlog) -> None:
    broker: Broker = memory
    broker = over_redis
    broker = backlog  # type: ignore[assignment]
    del broker


async def publishes_and_replays(broker: Broker, event: Event) -> None:
    assert_type(await broker.publish("channel", event, mark="turn"), str)
    await broker.publish("channel", event, mark="middle")  # type: ignore[arg-type]
    await broker.publish("channel", event, "holder")  # type: ignore[call-arg]
    async with broker.subscribe("channel", None) as reader:
        assert_type(reader, Subscription)
        assert_type(await reader.get(), Event)
    async for page in broker.stored("channel"):
        assert_type(page, Sequence[Event])


async def narrows_replies(redis: RedisConnection) -> None:
    reply = await redis.run("LRANGE", "key", 0, -1)
    assert_type(reply, object)
    assert_type(expect(int, reply), int)
    assert_type(expect_list(bytes, reply), list[bytes])
    len(reply)  # type: ignore[arg-type]
