"""The pub/sub connection without a Redis: how often it tries to reconnect, and when it stops."""

import asyncio

from redis.asyncio.client import PubSub

from proxy.chat.live_feed import LONGEST_PAUSE_SECONDS, LiveFeed
from proxy.redis_connection import RedisConnection
from tests.chat.conftest import shared
from tests.virtual_time import run_virtually

OUTAGE_SECONDS = 3600.0


class CountingConnection(RedisConnection):
    """A connection to an unavailable Redis, which counts the attempts to listen."""

    def __init__(self) -> None:
        super().__init__(shared("unix:///nowhere/redis.sock"))
        self.attempts = 0

    def listen(self) -> PubSub:
        """Count an attempt."""
        self.attempts += 1
        return super().listen()


class Nobody:
    """A listener of a channel without events."""

    def on_subscribed(self) -> None:
        """Never called."""

    def on_message(self, payload: bytes) -> None:
        """Never called."""


async def attempts_of(seconds: float, *channels: str) -> int:
    """Return how often a feed for these channels tries to connect in this time."""
    redis = CountingConnection()
    feed = LiveFeed(redis)
    for channel in channels:
        feed.listen(channel, Nobody())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run())
        await asyncio.sleep(seconds)
        assert not running.done()
        running.cancel()
    await redis.close()
    return redis.attempts


def test_during_a_long_outage_it_retries_with_long_pauses() -> None:
    attempts = run_virtually(lambda: attempts_of(OUTAGE_SECONDS, "c"))
    slowest = OUTAGE_SECONDS / LONGEST_PAUSE_SECONDS
    assert slowest <= attempts <= 2.1 * slowest


def test_it_does_not_connect_without_subscriptions() -> None:
    assert run_virtually(lambda: attempts_of(60)) == 0
