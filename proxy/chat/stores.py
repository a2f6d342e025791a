"""What the chat keeps and shares, opened as one: in this process, or in the Redis of `[shared]`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from proxy.chat.broker import EXPIRE_SECONDS, KEPT_EVENTS, QUEUE_EVENTS, Broker
from proxy.chat.channels import OWNED_SECONDS, Channels, MemoryChannels
from proxy.chat.conversation import Conversation, MemoryConversation
from proxy.chat.live_feed import LiveFeed
from proxy.chat.memory_broker import MemoryBroker
from proxy.chat.redis_broker import RedisBroker
from proxy.chat.redis_channels import RedisChannels
from proxy.chat.redis_conversation import RedisConversation
from proxy.credentials.sharing.record import Seal
from proxy.redis_connection import RedisConnection
from proxy.settings import Shared


@dataclass(frozen=True, slots=True)
class Stores:
    """Events, owners and words of all channels."""

    broker: Broker
    channels: Channels
    conversation: Conversation


@asynccontextmanager
async def open_stores(
    shared: Shared | None,
    redis: RedisConnection | None,
    *,
    turns: int,
    kept: int = KEPT_EVENTS,
    expire: float = EXPIRE_SECONDS,
    queue: int = QUEUE_EVENTS,
) -> AsyncIterator[Stores]:
    """Keep and share for as long as the block runs. Whoever enters it leaves it in the same task.

    Args:
        shared: The keys that seal what lies in Redis; None for this process alone.
        redis: The service's connection to it.
        turns: Of a channel, that go to the model with the next question.
        kept: Events of a channel.
        expire: Seconds after its last event or turn until nothing of a channel is kept.
        queue: Events that may wait for one reader.
    """
    # A reader that stays on uses its channel each time that its connection is old and made anew.
    owned = max(expire, OWNED_SECONDS)
    if shared is None or redis is None:
        broker = MemoryBroker(kept=kept, expire=expire, queue=queue)
        try:
            yield Stores(
                broker, MemoryChannels(owned=owned, kept=expire), MemoryConversation(turns, expire=expire)
            )
        finally:
            await broker.close()
        return
    async with open_feed(redis) as feed:
        over_redis = RedisBroker(redis, feed, kept=kept, expire=expire, queue=queue)
        try:
            yield Stores(
                over_redis,
                RedisChannels(redis, feed, owned=owned),
                RedisConversation(redis, Seal(shared.keys, shared.naming_key), turns, expire=expire),
            )
        finally:
            await over_redis.close()


@asynccontextmanager
async def open_feed(redis: RedisConnection) -> AsyncIterator[LiveFeed]:
    """Listen to Redis for as long as the block runs.

    The task that listens belongs to a group around the block: it ends with it, however it ends.
    """
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        feed = LiveFeed(redis)
        listening = group.create_task(feed.run())
        try:
            yield feed
        except Exception as error:  # whatever it is: out of the group it would come wrapped
            failure = error
        listening.cancel()
    if failure is not None:
        raise failure
