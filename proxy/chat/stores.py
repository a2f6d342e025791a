"""The state of the chat, opened together: in this process, or in the Redis of `[shared]`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from proxy.chat import notices
from proxy.chat.broker import EXPIRE_SECONDS, KEPT_BYTES, KEPT_TURNS, QUEUE_EVENTS, Broker
from proxy.chat.channels import OWNED_SECONDS, Channels, MemoryChannels
from proxy.chat.conversation import Conversation, MemoryConversation, RedisConversation
from proxy.chat.conversation_list import ConversationList, MemoryConversationList, RedisConversationList
from proxy.chat.live_feed import LiveFeed
from proxy.chat.memory_broker import MemoryBroker
from proxy.chat.orphans import OrphanWatch
from proxy.chat.outbox import OUTAGE_SECONDS
from proxy.chat.publisher import error_event, state_event
from proxy.chat.redis_broker import RedisBroker
from proxy.chat.redis_channels import RedisChannels
from proxy.chat.redis_leases import RedisLeases
from proxy.credentials.sharing.record import Seal
from proxy.redis_connection import RedisConnection
from proxy.settings import Shared
from proxy.task_groups import task_group


class Stores(msgspec.Struct, frozen=True):
    """Events, owners and conversations of all channels, and the lists of each visitor's conversations."""

    broker: Broker
    channels: Channels
    conversation: Conversation
    conversations: ConversationList


@asynccontextmanager
async def open_stores(
    shared: Shared | None,
    redis: RedisConnection | None,
    *,
    turns: int,
    kept: int = KEPT_TURNS,
    size: int = KEPT_BYTES,
    expire: float = EXPIRE_SECONDS,
    longest: float = 0.0,
    queue: int = QUEUE_EVENTS,
) -> AsyncIterator[Stores]:
    """Open the stores for the duration of the block, which must be left in the task that entered it.

    Args:
        shared: The keys that encrypt conversations in Redis; None to keep everything in this process.
        redis: The service's connection to Redis.
        turns: Turns of a channel to keep for the model.
        kept: Turns of a channel to keep for replay.
        size: Bytes of a channel to keep for replay.
        expire: Seconds after its last event or turn until a channel's events and turns are deleted.
        longest: Seconds that an answer may take. Its events are stored so much later than the last use of the
            channel, which still needs its owner then.
        queue: Live events that may wait for one reader.
    """
    # A reader that stays uses its channel each time it reconnects.
    used = expire + longest + OUTAGE_SECONDS
    owned = max(used, OWNED_SECONDS)
    if shared is None or redis is None:
        channels = MemoryChannels(owned=owned, kept=used)
        visitor_of = channels.visitor_of
        broker = MemoryBroker(kept=kept, size=size, expire=expire, queue=queue, visitor_of=visitor_of)
        try:
            yield Stores(
                broker,
                channels,
                MemoryConversation(turns, expire=expire, visitor_of=visitor_of),
                MemoryConversationList(expire=expire, visitor_of=visitor_of),
            )
        finally:
            await broker.close()
        return
    leases, seal = RedisLeases(redis), Seal(shared.keys, shared.naming_key)
    async with open_feed(redis) as feed:
        over_redis = RedisBroker(redis, feed, leases, kept=kept, size=size, expire=expire, queue=queue)
        try:
            async with _watch_orphans(leases, over_redis):
                yield Stores(
                    over_redis,
                    RedisChannels(redis, feed, leases, owned=owned),
                    RedisConversation(redis, seal, turns, expire=expire),
                    RedisConversationList(redis, seal, expire=expire),
                )
        finally:
            await over_redis.close()


@asynccontextmanager
async def _watch_orphans(leases: RedisLeases, broker: RedisBroker) -> AsyncIterator[None]:
    """End dialogues of dead processes for the duration of the block."""
    ending = (error_event(notices.CUT_OFF), state_event("failed"))
    async with task_group() as group:
        watching = group.create_task(OrphanWatch(leases, broker, ending).run())
        try:
            yield
        finally:
            watching.cancel()


@asynccontextmanager
async def open_feed(redis: RedisConnection) -> AsyncIterator[LiveFeed]:
    """Listen to Redis for the duration of the block, in a task that ends with the block."""
    async with task_group() as group:
        feed = LiveFeed(redis)
        listening = group.create_task(feed.run())
        try:
            yield feed
        finally:
            listening.cancel()
