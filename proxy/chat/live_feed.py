"""The pub/sub connection of a process, which reconnects and resubscribes after every loss.

Redis confirms each subscription to its listener: the first time, and after every reconnection.
From then on it receives every message; earlier messages it has to find elsewhere. Because only confirmations
count, it does not matter how a connection was lost or restored.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

from proxy.redis_connection import RedisConnection, StoreUnavailable, translated_errors
from proxy.telemetry import get_logger

if TYPE_CHECKING:  # A chat without Redis does not import it.
    from redis.asyncio.client import PubSub

PING_SECONDS: Final = 5.0
"""Silence after which the connection is pinged; after as much silence again, it is closed."""
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 2.0
_MESSAGE_BATCH_MAX: Final = 16
"""Messages delivered before other tasks may run."""


class Listener(Protocol):
    """Receives the messages of a channel. Its methods do not block."""

    def on_subscribed(self) -> None:
        """Handle the confirmation of the subscription: from now on every message is received."""
        ...

    def on_message(self, payload: bytes) -> None:
        """Handle a published message."""
        ...


class LiveFeed:
    """Listens to channels of Redis, with one listener per channel.

    Args:
        redis: The connection settings.
        ping: Seconds of silence until the connection is pinged.
    """

    def __init__(self, redis: RedisConnection, *, ping: float = PING_SECONDS) -> None:
        self._redis = redis
        self._ping = ping
        self._listeners: dict[str, Listener] = {}
        self._live: set[str] = set()
        self._changed = asyncio.Event()
        self._log = get_logger("chat")

    def listen(self, channel: str, listener: Listener) -> None:
        """Deliver the messages of a channel to a listener, until `leave`."""
        self._listeners[channel] = listener
        self._changed.set()

    def leave(self, channel: str) -> None:
        """Stop listening to a channel."""
        self._listeners.pop(channel, None)
        self._changed.set()

    def is_live(self, channel: str) -> bool:
        """Return whether the subscription to a channel is confirmed and not known to be lost."""
        return channel in self._live

    async def run(self) -> None:
        """Keep a connection open while there are listeners. Runs until it is cancelled."""
        pauses, logged = _pauses(), False
        while True:
            while not self._listeners:
                self._changed.clear()
                await self._changed.wait()
            try:
                reason = await self._connection()
            except Exception as error:  # redis-py raises other errors too when its connection is lost
                reason = type(error).__name__
            if self._live:  # the connection worked: start with short pauses again
                pauses, logged = _pauses(), False
                self._live.clear()
            if not logged:
                self._log.warning("chat_feed_lost", reason=reason)
            logged = True
            await asyncio.sleep(next(pauses))

    async def _connection(self) -> str:
        """Run one connection, and return the reason why it ended."""
        feed = self._redis.listen()
        try:
            with translated_errors():
                async with asyncio.timeout(self._redis.timeout):
                    await feed.connect()  # type: ignore[no-untyped-call]  # redis has no types for it
            async with asyncio.TaskGroup() as group:
                # Both return errors rather than raise them: the group would wrap them.
                both = [group.create_task(self._write(feed)), group.create_task(self._read(feed))]
                ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for task in both:
                    task.cancel()
            return ended.pop().result()
        except StoreUnavailable as error:
            return str(error)
        finally:
            with contextlib.suppress(StoreUnavailable), translated_errors():
                async with asyncio.timeout(self._redis.timeout):
                    await feed.aclose()  # type: ignore[no-untyped-call]  # redis has no types for it

    async def _write(self, feed: "PubSub") -> str:
        """Keep the subscriptions equal to the channels that have listeners."""
        subscribed: set[str] = set()
        try:
            while True:
                self._changed.clear()
                wanted = set(self._listeners)
                self._live -= subscribed - wanted
                if wanted - subscribed:
                    await self._send(feed.subscribe(*wanted - subscribed))
                if subscribed - wanted:
                    await self._send(feed.unsubscribe(*subscribed - wanted))
                subscribed = wanted
                await self._changed.wait()
        except StoreUnavailable as error:
            return str(error)

    async def _read(self, feed: "PubSub") -> str:
        """Deliver messages to their listeners."""
        pinged, in_a_row = False, 0
        try:
            while True:
                with translated_errors():
                    message = await feed.get_message(timeout=self._ping)
                if message is not None:
                    pinged = False
                    self._deliver(message)
                    in_a_row = (in_a_row + 1) % _MESSAGE_BATCH_MAX
                    if not in_a_row:
                        # Reading buffered messages does not yield to other tasks, so that a burst would
                        # overflow the queues of readers.
                        await asyncio.sleep(0)
                elif pinged:
                    return "silent"
                else:
                    pinged = True
                    await self._send(feed.ping())
        except StoreUnavailable as error:
            return str(error)

    async def _send(self, sending: Awaitable[object]) -> None:
        with translated_errors():
            async with asyncio.timeout(self._redis.timeout):
                await sending

    def _deliver(self, message: dict[str, Any]) -> None:
        if message["channel"] is None:
            return
        channel = message["channel"].decode("utf-8", "replace")
        listener = self._listeners.get(channel)
        match message["type"]:
            case "subscribe":
                self._live.add(channel)
                if listener is not None:
                    listener.on_subscribed()
            case "unsubscribe":
                self._live.discard(channel)
            case "message" if listener is not None:
                listener.on_message(message["data"])


def _pauses() -> Iterator[float]:
    """Yield the pauses before reconnections: growing, and random so that processes spread out."""
    longest = FIRST_PAUSE_SECONDS
    while True:
        yield longest * random.uniform(0.5, 1.0)  # noqa: S311  spreads reconnections
        longest = min(2 * longest, LONGEST_PAUSE_SECONDS)
