"""A broker over Redis, for several processes and for Flask sites with flask-sse on the same Redis.

Live events are published on the bare name of the channel, as flask-sse does. In addition, each event is
stored in a stream, from which readers get events that they missed: before they subscribed, or while the
connection to Redis was lost. Events that flask-sse publishes have no id; they are not replayed.

The stream of channel `C` is `sse:C`. An entry has `d`, flask-sse's envelope without an id, and `n`, a nonce;
the entry's id is the event's id. Rendered messages are stored in plain text, because a Flask site on the same
Redis must be able to read them. Only trusted services may have access to that Redis.

A process has one pub/sub connection for all its channels (`live_feed.py`) and distributes events itself.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from proxy.chat.broker import EXPIRE_SECONDS, KEPT_EVENTS, QUEUE_EVENTS, BrokerClosed, Mailbox
from proxy.chat.event import START, Event, Position, format_id, parse_id
from proxy.chat.live_feed import LiveFeed
from proxy.redis_connection import RedisConnection, StoreUnavailable
from proxy.telemetry import get_logger

PATIENCE_SECONDS: Final = 5.0
"""How long publishing an event is retried while Redis restarts."""
PAGE_EVENTS: Final = 100
"""Events read from a stream at once; a reader holds no more replayed events than these."""
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0

PUBLISH: Final = """
if ARGV[7] == '1' then
    for _, entry in ipairs(redis.call('xrevrange', KEYS[1], '+', '-', 'COUNT', 32)) do
        if entry[2][4] == ARGV[1] then return entry[1] end
    end
end
local id = redis.call('xadd', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'd', ARGV[4] .. ARGV[5], 'n', ARGV[1])
redis.call('pexpire', KEYS[1], ARGV[3])
redis.call('publish', ARGV[6], ARGV[4] .. ', "id": "' .. id .. '"' .. ARGV[5])
return id
"""
"""KEYS: stream. ARGV: nonce, entries to keep, expiry in ms, envelope before and after the id, channel, 1 for
a retry.

A script rather than a pipeline: the message must contain the id of its entry, and messages must be published
in the order of their ids. It is atomic: a published event is stored, so a reader that missed the message
finds the entry. If the reply to an attempt was lost, the retry finds its nonce among the latest entries.
"""


class Backlog:
    """The streams of all channels.

    Args:
        redis: The connection.
        kept: Entries of a channel to keep; up to a hundred more remain, since Redis trims whole nodes.
        expire: Seconds after a channel's last event until its stream expires.
    """

    def __init__(self, redis: RedisConnection, kept: int, expire: float) -> None:
        self._redis = redis
        self._kept = kept
        self._expire_ms = int(expire * 1000)
        self._log = get_logger("chat")

    @staticmethod
    def new_nonce() -> str:
        """Return a nonce for one event and all attempts to publish it."""
        return secrets.token_hex(8)

    async def publish(self, channel: str, event: Event, nonce: str, *, again: bool) -> str:
        """Store an event, publish it, and return its id.

        Args:
            channel: The channel's name.
            event: The event; its own id is ignored.
            nonce: The event's nonce.
            again: Whether an earlier attempt may have succeeded.

        Raises:
            StoreUnavailable: Redis did not answer; the event may or may not have been published.
        """
        head, tail = event.envelope_parts()
        answer: bytes = await self._redis.run_script(
            PUBLISH, [_key(channel)],
            nonce, self._kept, self._expire_ms, head, tail, channel, int(again),
        )  # fmt: skip
        return answer.decode()

    async def after(self, channel: str, position: Position, most: int) -> list[tuple[Position, Event | None]]:
        """Return the next entries after a position, with None for an unreadable entry.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        start = f"({format_id(position)}"
        entries = await self._redis.run("XRANGE", _key(channel), start, "+", "COUNT", most)
        return [self._read(*entry) for entry in entries]

    async def newest(self, channel: str) -> Position:
        """Return the position of the last entry.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        entries = await self._redis.run("XREVRANGE", _key(channel), "+", "-", "COUNT", 1)
        return self._read(*entries[0])[0] if entries else START

    async def knows(self, channel: str) -> bool:
        """Return whether a channel has entries.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return bool(await self._redis.run("XLEN", _key(channel)))

    async def forget(self, channel: str) -> None:
        """Delete the entries of a channel.

        The empty stream remains until it expires, because it remembers its last id: a new stream could issue
        the same id again within the same millisecond.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        await self._redis.run("XTRIM", _key(channel), "MAXLEN", 0)

    def _read(self, name: bytes, fields: dict[bytes, bytes]) -> tuple[Position, Event | None]:
        text = name.decode()
        position = parse_id(text)
        if position is None:
            raise StoreUnavailable("an entry with an invalid id")
        try:
            event = Event.from_envelope(fields[b"d"])
        except (KeyError, ValueError):
            self._log.warning("chat_entry_unreadable")
            return position, None
        return position, replace(event, id=text)


class _Replay:
    """A marker in a mailbox: read the backlog for everything published before this point."""


_REPLAY: Final = _Replay()


class _Reader:
    """One reader of one channel.

    Its mailbox receives live events, and a marker each time the feed is subscribed. At a marker, the reader
    reads the backlog from its last event on, and then skips live events that it has already read there. It
    also skips live events before the first marker, because the backlog contains them and earlier ones.
    """

    __slots__ = (
        "_backlog",
        "_channel",
        "_last",
        "_read_up_to",
        "_replayed",
        "_replaying",
        "_started",
        "mailbox",
    )

    def __init__(self, channel: str, backlog: Backlog, after: Position | None, queue: int) -> None:
        self.mailbox = Mailbox[Event | _Replay](queue)
        self._channel = channel
        self._backlog = backlog
        self._last = self._read_up_to = after
        self._started = False
        self._replaying = False
        self._replayed: deque[Event] | None = None

    async def get(self) -> Event:
        """Return the next event; see `Subscription`."""
        while True:
            if self._replayed:
                return self._replayed.popleft()
            self._replayed = None
            if self._replaying:
                await self._replay()
                continue
            item = await self.mailbox.get()
            if isinstance(item, _Replay):
                self._started = self._replaying = True
            elif item.position is None:  # published by another application
                return item
            elif self._started and (self._read_up_to is None or item.position > self._read_up_to):
                self._last = item.position
                return item

    async def _replay(self) -> None:
        """Read the next page of the backlog, and wait for Redis as long as it takes."""
        pause = _FIRST_PAUSE_SECONDS
        while not self.mailbox.closed:
            try:
                await self._read_page()
            except StoreUnavailable:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                return
        self._replaying = False

    async def _read_page(self) -> None:
        if self._last is None:  # a reader of live events that subscribed while Redis was unavailable
            self._last = await self._backlog.newest(self._channel)
            self._replaying = False
            return
        page = await self._backlog.after(self._channel, self._last, PAGE_EVENTS)
        if page:
            self._last = self._read_up_to = page[-1][0]
            self._replayed = deque(event for _, event in page if event is not None)
        self._replaying = len(page) == PAGE_EVENTS


class _Hub:
    """Listens to one channel for all its readers in this process."""

    __slots__ = ("_log", "live", "readers")

    def __init__(self) -> None:
        self.readers: set[_Reader] = set()
        self.live: asyncio.Event | None = None
        self._log = get_logger("chat")

    def on_subscribed(self) -> None:
        for reader in self.readers:
            reader.mailbox.put(_REPLAY)
        if self.live is not None:
            self.live.set()

    def on_message(self, payload: bytes) -> None:
        try:
            event = Event.from_envelope(payload)
        except ValueError:  # any client of Redis may publish there
            self._log.warning("chat_message_unreadable", bytes=len(payload))
            return
        for reader in self.readers:
            reader.mailbox.put(event)


class RedisBroker:
    """Publishes, stores and replays events over Redis.

    Args:
        redis: The connection for commands.
        feed: The connection that listens; the caller runs it.
        kept: Events of a channel to keep; up to a hundred more may remain.
        expire: Seconds after a channel's last event until its events are deleted.
        queue: Live events that may wait for one reader.
        patience: Seconds for publishing one event, including retries and pauses.
    """

    def __init__(
        self,
        redis: RedisConnection,
        feed: LiveFeed,
        *,
        kept: int = KEPT_EVENTS,
        expire: float = EXPIRE_SECONDS,
        queue: int = QUEUE_EVENTS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._redis = redis
        self._feed = feed
        self._backlog = Backlog(redis, kept, expire)
        self._queue = queue
        self._patience = patience
        self._hubs: dict[str, _Hub] = {}
        self._closed = False

    async def publish(self, channel: str, event: Event) -> str:
        """Store and send an event, and return its id. Retry for a few seconds while Redis restarts.

        Raises:
            StoreUnavailable: Redis did not answer; the event may or may not have been published.
            BrokerClosed: The service is shutting down.
        """
        nonce, again, pause = Backlog.new_nonce(), False, _FIRST_PAUSE_SECONDS
        deadline = asyncio.get_running_loop().time() + self._patience
        while not self._closed:
            try:
                return await self._backlog.publish(channel, event, nonce, again=again)
            except StoreUnavailable:
                if asyncio.get_running_loop().time() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            again, pause = True, min(2 * pause, _LONGEST_PAUSE_SECONDS)
        raise BrokerClosed

    @asynccontextmanager
    async def subscribe(self, channel: str, after: str | None) -> AsyncIterator[_Reader]:
        """Subscribe to a channel until the end of the block.

        It does not fail while Redis is unavailable: the reader gets missed events once Redis is back. Without
        `after`, the reader gets every event published after entering, provided that Redis answered in time.

        Raises:
            BrokerClosed: The service is shutting down.
        """
        if self._closed:
            raise BrokerClosed
        position = parse_id(after) or await self._newest(channel)
        reader = _Reader(channel, self._backlog, position, self._queue)
        hub = self._hubs.get(channel)
        if hub is None:
            hub = self._hubs[channel] = _Hub()
            self._feed.listen(channel, hub)
        hub.readers.add(reader)
        try:
            if self._feed.is_live(channel):
                reader.mailbox.put(_REPLAY)
            elif parse_id(after) is None:
                await self._wait_until_live(hub)
            yield reader
        finally:
            hub.readers.discard(reader)
            if not hub.readers:
                del self._hubs[channel]
                self._feed.leave(channel)

    async def forget(self, channel: str) -> None:
        """Delete the stored events of a channel.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        await self._backlog.forget(channel)

    async def knows(self, channel: str) -> bool:
        """Return whether events of a channel are stored.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return await self._backlog.knows(channel)

    async def close(self) -> None:
        """End every subscription."""
        self._closed = True
        for hub in self._hubs.values():
            for reader in hub.readers:
                reader.mailbox.close()

    async def _newest(self, channel: str) -> Position | None:
        try:
            return await self._backlog.newest(channel)
        except StoreUnavailable:
            return None

    async def _wait_until_live(self, hub: _Hub) -> None:
        hub.live = hub.live or asyncio.Event()
        try:
            async with asyncio.timeout(self._redis.timeout):
                await hub.live.wait()
        except TimeoutError:
            pass  # the hub puts the marker once the feed is subscribed
        else:
            hub.live = None


def _key(channel: str) -> str:
    return f"sse:{channel}"
