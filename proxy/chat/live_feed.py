"""One pub/sub connection for a whole process: what is wanted is subscribed to, and again after every loss.

A listener hears `went_live` each time that Redis has confirmed its channel: the first time, and after every
reconnection. From then on it gets every message; what was published before, it has to look up elsewhere.
Confirmations alone are believed, so that it does not matter how a connection was lost or by whom repaired.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterator
from typing import Any, Final, Protocol

from redis.asyncio.client import PubSub

from proxy.redis_connection import RedisConnection, StoreUnavailable, translated_errors
from proxy.telemetry import get_logger

PING_SECONDS: Final = 5.0
"""A connection that was silent so long is asked whether it lives; silent as long again, it is given up."""
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 2.0
_IN_A_ROW: Final = 16
"""Messages handed out before everybody else has a turn."""


class Listener(Protocol):
    """Who hears what comes on a channel. Neither method waits."""

    def went_live(self) -> None:
        """From here on every message comes."""
        ...

    def arrived(self, payload: bytes) -> None:
        """A message came."""
        ...


class LiveFeed:
    """Listens to channels of Redis for all of a process, a listener a channel.

    Args:
        redis: The way to Redis.
        ping: Seconds of silence until a connection is asked whether it lives.
    """

    def __init__(self, redis: RedisConnection, *, ping: float = PING_SECONDS) -> None:
        self._redis = redis
        self._ping = ping
        self._listeners: dict[str, Listener] = {}
        self._live: set[str] = set()
        self._changed = asyncio.Event()
        self._log = get_logger("chat")

    def listen(self, channel: str, listener: Listener) -> None:
        """Let somebody hear a channel, until it is left."""
        self._listeners[channel] = listener
        self._changed.set()

    def leave(self, channel: str) -> None:
        """Nobody hears this channel any more."""
        self._listeners.pop(channel, None)
        self._changed.set()

    def is_live(self, channel: str) -> bool:
        """Whether every message of a channel comes now, as far as is known."""
        return channel in self._live

    async def run(self) -> None:
        """Keep one connection for as long as anything is wanted. It never ends by itself."""
        pauses, told = _pauses(), False
        while True:
            while not self._listeners:
                self._changed.clear()
                await self._changed.wait()
            try:
                reason = await self._connection()
            except Exception as error:  # redis-py fails in other ways too when a connection is cut under it
                reason = type(error).__name__
            if self._live:  # it had come so far: begin with short pauses again
                pauses, told = _pauses(), False
                self._live.clear()
            if not told:
                self._log.warning("chat_feed_lost", reason=reason)
            told = True
            await asyncio.sleep(next(pauses))

    async def _connection(self) -> str:
        """One connection from its beginning to its end; what ended it."""
        feed = self._redis.listen()
        try:
            with translated_errors():
                async with asyncio.timeout(self._redis.timeout):
                    await feed.connect()  # type: ignore[no-untyped-call]
            async with asyncio.TaskGroup() as group:
                # Neither raises what ends a connection: it would come out of the group wrapped.
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
                    await feed.aclose()  # type: ignore[no-untyped-call]

    async def _write(self, feed: PubSub) -> str:
        """Subscribe to what is wanted and not yet subscribed to, and the other way round."""
        asked: set[str] = set()
        try:
            while True:
                self._changed.clear()
                wanted = set(self._listeners)
                self._live -= asked - wanted
                if wanted - asked:
                    await self._send(feed.subscribe(*wanted - asked))
                if asked - wanted:
                    await self._send(feed.unsubscribe(*asked - wanted))
                asked = wanted
                await self._changed.wait()
        except StoreUnavailable as error:
            return str(error)

    async def _read(self, feed: PubSub) -> str:
        """Hand out what comes."""
        asked, in_a_row = False, 0
        try:
            while True:
                with translated_errors():
                    message = await feed.get_message(timeout=self._ping)
                if message is not None:
                    asked = False
                    self._hand_out(message)
                    in_a_row = (in_a_row + 1) % _IN_A_ROW
                    if not in_a_row:
                        # A read that finds its bytes there does not wait: without a pause a burst would
                        # overflow the queue of a reader that had no chance to run.
                        await asyncio.sleep(0)
                elif asked:
                    return "silent"
                else:
                    asked = True
                    await self._send(feed.ping())
        except StoreUnavailable as error:
            return str(error)

    async def _send(self, sending: Any) -> None:
        with translated_errors():
            async with asyncio.timeout(self._redis.timeout):
                await sending

    def _hand_out(self, message: dict[str, Any]) -> None:
        if message["channel"] is None:
            return
        channel = message["channel"].decode("utf-8", "replace")
        listener = self._listeners.get(channel)
        match message["type"]:
            case "subscribe":
                self._live.add(channel)
                if listener is not None:
                    listener.went_live()
            case "unsubscribe":
                self._live.discard(channel)
            case "message" if listener is not None:
                listener.arrived(message["data"])


def _pauses() -> Iterator[float]:
    """Before each next connection: a short one, then ever longer ones, drawn so that processes differ."""
    longest = FIRST_PAUSE_SECONDS
    while True:
        yield longest * random.uniform(0.5, 1.0)  # noqa: S311  spreads reconnections
        longest = min(2 * longest, LONGEST_PAUSE_SECONDS)
