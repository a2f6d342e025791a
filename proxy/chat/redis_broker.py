"""A broker over Redis, for several processes and for Flask sites with flask-sse on the same Redis.

Live events are published on the bare name of the channel, as flask-sse does. In addition, each event is
stored in a stream, from which readers get events that they missed: before they subscribed, or while the
connection to Redis was lost. Events that flask-sse publishes have no id; they are not replayed.

The stream of channel `C` is `sse:C`. An entry has `d`, flask-sse's envelope without an id, and `n`, a nonce;
the entry's id is the event's id. `...:{C}:starts` lists the entries that begin turns, and `...:{C}:bytes`
counts the bytes of the stream. Rendered messages are stored in plain text, because a Flask site on the same
Redis must be able to read them. Only trusted services may have access to that Redis.

A process has one pub/sub connection for all its channels (`live_feed.py`) and distributes events itself.
"""

import asyncio
import contextlib
import math
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from msgspec.structs import replace

from proxy.chat.broker import (
    EXPIRE_SECONDS,
    KEPT_BYTES,
    KEPT_TURNS,
    PAGE_EVENTS,
    QUEUE_EVENTS,
    RETRY_SECONDS,
    BrokerClosed,
    Copied,
    LeaseLost,
    Mailbox,
    Mark,
)
from proxy.chat.event import START, Event, Position, format_id, parse_id
from proxy.chat.live_feed import LiveFeed
from proxy.chat.redis_leases import HOLDS_LEASE, LEASES, RedisLeases, ended_key, lease_key
from proxy.chat.states import is_unfinished
from proxy.redis_connection import (
    NAMESPACE,
    RedisConnection,
    StoreCorrupt,
    StoreUnavailable,
    expect,
    expect_list,
)
from proxy.telemetry import get_logger

_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0

_STORE: Final = """
local function clear(stream, before)
    local bytes = 0
    local entries = redis.call('xrange', stream, '-', '(' .. before)
    for _, entry in ipairs(entries) do bytes = bytes + #entry[2][2] end
    redis.call('xtrim', stream, 'MINID', before)
    return bytes
end
local function store(keys, nonce, head, tail, channel, begins, most_turns, most_bytes, expiry)
    local stream, turns, bytes = keys[1], keys[2], keys[3]
    redis.call('xlen', stream)  -- a key of another type must be found before anything is written
    redis.call('llen', turns)
    local total = redis.call('incrby', bytes, #head + #tail)
    redis.call('pexpire', bytes, expiry)  -- even if the next command fails
    local id = redis.call('xadd', stream, '*', 'd', head .. tail, 'n', nonce)
    if begins then redis.call('rpush', turns, id) end
    local kept = redis.call('llen', turns)
    while kept > 1 and (kept > most_turns or total > most_bytes) do
        redis.call('lpop', turns)
        total = redis.call('decrby', bytes, clear(stream, redis.call('lindex', turns, 0)))
        kept = kept - 1
    end
    while total > most_bytes do
        local second = redis.call('xrange', stream, '-', '+', 'COUNT', 2)[2]
        if not second then break end
        total = redis.call('decrby', bytes, clear(stream, second[1]))
    end
    for _, key in ipairs(keys) do redis.call('pexpire', key, expiry) end
    redis.call('publish', channel, head .. ', "id": "' .. id .. '"' .. tail)
    return id
end
"""
"""A Lua function that stores an event, and publishes it with the id of its entry.

A script rather than a pipeline: the message must contain the id of its entry, and messages must be published
in the order of their ids. It is atomic: a published event is stored, so a reader that missed the message
finds the entry.
"""

_PUBLISH: Final = f"""{HOLDS_LEASE}{_STORE}
if ARGV[9] == '1' then
    for _, entry in ipairs(redis.call('xrevrange', KEYS[1], '+', '-', 'COUNT', 32)) do
        if entry[2][4] == ARGV[1] then return entry[1] end
    end
end
local channel, holder, mark = ARGV[4], ARGV[10], ARGV[8]
if holder ~= '' then
    if not holds(KEYS[4], KEYS[5], KEYS[6], holder, channel, ARGV[11]) then return false end
end
local id = store(
    {{KEYS[1], KEYS[2], KEYS[3]}}, ARGV[1], ARGV[2], ARGV[3], channel, mark == 'turn',
    tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
)
if holder ~= '' then
    if mark == 'end' then
        release(KEYS[4], KEYS[5], KEYS[6], channel)
    else
        redis.call('hset', KEYS[4], 'open', 1)
    end
end
return id
"""
"""KEYS: stream, turns, bytes, lease, leases, ended. ARGV: nonce, envelope before and after the id, channel,
turns and bytes to keep, expiry in ms, mark, 1 for a retry, holder or nothing, ms of the lease.

If the reply to an attempt was lost, the retry finds its nonce among the latest entries.
"""

_END_LAPSED: Final = f"""{HOLDS_LEASE}{_STORE}
local channel, due = ARGV[1], redis.call('zscore', KEYS[5], ARGV[1])
if not due or tonumber(due) > now() then return 0 end
if redis.call('hexists', KEYS[4], 'open') == 1 then
    for part = 6, #ARGV, 2 do
        store(
            {{KEYS[1], KEYS[2], KEYS[3]}}, '', ARGV[part], ARGV[part + 1], channel, false,
            tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
        )
    end
end
release(KEYS[4], KEYS[5], ARGV[5] .. (redis.call('hget', KEYS[4], 'holder') or ''), channel)
return 1
"""
"""KEYS: stream, turns, bytes, lease, leases. ARGV: channel, turns and bytes to keep, expiry in ms, the key of
an ended dialogue without its holder, and for each event its envelope before and after the id."""


_COPY: Final = """
if redis.call('exists', KEYS[3]) == 1 then return false end
local function parts(id)
    local milliseconds, count = string.match(id, '(%d+)-(%d+)')
    return milliseconds and tonumber(milliseconds), count and tonumber(count)
end
local bytes, later, before, count = 0, 0, parts(ARGV[1])
local entries = redis.call('xrange', KEYS[1], '-', '(' .. ARGV[1])
local turns = redis.call('lrange', KEYS[2], 0, -1)
redis.call('llen', KEYS[4])  -- a key of another type must be found before anything is written
for _, entry in ipairs(entries) do
    redis.call('xadd', KEYS[3], entry[1], unpack(entry[2]))
    bytes = bytes + #entry[2][2]
end
for _, id in ipairs(turns) do
    local milliseconds, number = parts(id)
    if not milliseconds then
        -- of another program
    elseif milliseconds < before or (milliseconds == before and number < count) then
        redis.call('rpush', KEYS[4], id)
    else
        later = later + 1
    end
end
redis.call('set', KEYS[5], bytes)
for place = 3, 5 do redis.call('pexpire', KEYS[place], ARGV[2]) end
return {later, bytes}
"""
"""KEYS: stream and turns of the source; stream, turns and bytes of the target. ARGV: the first event that is
not copied, expiry in ms. Returns nothing if the target is not new."""


class Backlog:
    """The streams of all channels.

    Args:
        turns: Turns of a channel to keep.
        size: Bytes of a channel to keep.
        expire: Seconds after a channel's last event until its stream expires.
    """

    def __init__(
        self, redis: RedisConnection, leases: RedisLeases, *, turns: int, size: int, expire: float
    ) -> None:
        self._redis = redis
        self._leases = leases
        self._limits = (turns, size, int(expire * 1000))
        self._log = get_logger("chat")

    @staticmethod
    def new_nonce() -> str:
        """Return a nonce for one event and all attempts to publish it."""
        return secrets.token_hex(8)

    async def publish(
        self,
        channel: str,
        event: Event,
        nonce: str,
        *,
        again: bool,
        holder: str | None = None,
        mark: Mark | None = None,
    ) -> str:
        """Store an event, publish it, and return its id.

        Args:
            event: The event; its own id is ignored.
            nonce: The event's nonce.
            again: Whether an earlier attempt may have succeeded.
            holder: The holder of the lease of the dialogue that publishes.
            mark: What the event begins or ends.

        Raises:
            StoreUnavailable: Redis did not answer; the event may or may not have been published.
            LeaseLost: The lease is another's.
        """
        keys = (*_keys(channel), lease_key(channel), LEASES, ended_key(channel, holder or ""))
        reply = await self._redis.run_script(
            _PUBLISH, keys,
            nonce, *event.envelope_parts(), channel, *self._limits, mark or "", int(again), holder or "",
            self._leases.milliseconds,
        )  # fmt: skip
        if reply is None:
            raise LeaseLost
        return expect(bytes, reply).decode()

    async def end_lapsed(self, channel: str, events: Sequence[Event]) -> bool:
        """Publish the end of a dialogue whose lease has lapsed, and release the lease.

        Returns:
            False if the lease was renewed or released meanwhile.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        keys = (*_keys(channel), lease_key(channel), LEASES)
        parts = [part for event in events for part in event.envelope_parts()]
        answer = await self._redis.run_script(
            _END_LAPSED, keys, channel, *self._limits, ended_key(channel, ""), *parts
        )
        return bool(answer)

    async def copy(self, source: str, target: str, before: Position) -> Copied | None:
        """Copy the entries before a position to a new channel; see `Broker.copy`.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        keys = (*_keys(source)[:2], *_keys(target))
        reply = await self._redis.run_script(_COPY, keys, format_id(before), self._limits[2])
        return None if reply is None else Copied(*expect_list(int, reply))

    async def reopen(self, channel: str, last: Position) -> None:
        """Make sure that an unfinished dialogue has a lease; see `RedisLeases.reopen`.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        await self._leases.reopen(channel, _keys(channel)[0], format_id(last))

    async def after(
        self, channel: str, position: Position, limit: int
    ) -> list[tuple[Position, Event | None]]:
        """Return the next entries after a position, with None for an unreadable entry.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        start = f"({format_id(position)}"
        reply = await self._redis.run("XRANGE", _keys(channel)[0], start, "+", "COUNT", limit)
        return [self._read(*entry) for entry in expect_list(tuple, reply)]

    async def newest(self, channel: str) -> Position:
        """Return the position of the last entry.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        reply = await self._redis.run("XREVRANGE", _keys(channel)[0], "+", "-", "COUNT", 1)
        entries = expect_list(tuple, reply)
        return self._read(*entries[0])[0] if entries else START

    async def has_events(self, channel: str) -> bool:
        """Return whether a channel has entries.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return bool(await self._redis.run("XLEN", _keys(channel)[0]))

    async def forget(self, channel: str) -> None:
        """Delete the entries of a channel.

        The empty stream remains until it expires, because it remembers its last id: a new stream could issue
        the same id again within the same millisecond.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        stream, turns, size = _keys(channel)
        await self._redis.run("XTRIM", stream, "MAXLEN", 0)
        await self._redis.run("DEL", turns, size)

    def _read(self, name: bytes, fields: dict[bytes, bytes]) -> tuple[Position, Event | None]:
        text = name.decode()
        position = parse_id(text)
        if position is None:
            raise StoreCorrupt("an entry of a stream has an id after which no other can follow")
        try:
            event = Event.from_envelope(fields[b"d"])
        except (KeyError, ValueError):
            self._log.warning("chat_entry_unreadable")
            return position, None
        return position, replace(event, id=text)


class _Replay:
    """A marker in a mailbox: read the backlog for everything published before this point."""


_REPLAY: Final = _Replay()


class _RedisSubscription:
    """One reader of one channel.

    Its mailbox receives live events, and a marker each time Redis confirms the subscription. At a marker, the
    reader reads the backlog from its last event on, and then skips live events that it has already read
    there. It also skips live events before the first marker, because the backlog contains them and earlier
    ones.
    """

    __slots__ = (
        "_backlog",
        "_channel",
        "_last",
        "_read_up_to",
        "_replayed",
        "_replaying",
        "_started",
        "_unfinished",
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
        self._unfinished = False

    @property
    def progress(self) -> tuple[Position, bool]:
        """The last event, and whether a dialogue was unfinished after it."""
        return self._last or START, self._unfinished

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
                self._unfinished = is_unfinished(item, before=self._unfinished)
                return item

    async def _replay(self) -> None:
        """Read the next page of the backlog, and wait for Redis as long as it takes.

        Raises:
            StoreCorrupt: The key holds something else.
        """
        pause = _FIRST_PAUSE_SECONDS
        while not self.mailbox.closed:
            try:
                await self._read_page()
            except StoreCorrupt:
                raise
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
            for event in self._replayed:
                self._unfinished = is_unfinished(event, before=self._unfinished)
        self._replaying = len(page) == PAGE_EVENTS


class _Hub:
    """Listens to one channel for all its readers in this process."""

    __slots__ = ("_log", "live", "readers")

    def __init__(self) -> None:
        self.readers: set[_RedisSubscription] = set()
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
        feed: The connection that listens; the caller runs it.
        kept: Turns of a channel to keep.
        size: Bytes of a channel to keep.
        expire: Seconds after a channel's last event until its events are deleted.
        queue: Live events that may wait for one reader.
    """

    def __init__(
        self,
        redis: RedisConnection,
        feed: LiveFeed,
        leases: RedisLeases,
        *,
        kept: int = KEPT_TURNS,
        size: int = KEPT_BYTES,
        expire: float = EXPIRE_SECONDS,
        queue: int = QUEUE_EVENTS,
    ) -> None:
        self._redis = redis
        self._feed = feed
        self._backlog = Backlog(redis, leases, turns=kept, size=size, expire=expire)
        self._queue = queue
        self._hubs: dict[str, _Hub] = {}
        self._closed = False

    async def publish(
        self,
        channel: str,
        event: Event,
        *,
        holder: str | None = None,
        mark: Mark | None = None,
        retry_seconds: float | None = RETRY_SECONDS,
    ) -> str:
        """Store and send an event, and return its id. Retry while Redis restarts.

        Raises:
            StoreUnavailable: Redis did not answer; the event may or may not have been published.
            LeaseLost: The lease is another's; nothing was published.
            BrokerClosed: The service is shutting down.
        """
        nonce, again, pause = Backlog.new_nonce(), False, _FIRST_PAUSE_SECONDS
        loop = asyncio.get_running_loop()
        deadline = math.inf if retry_seconds is None else loop.time() + retry_seconds
        while not self._closed:
            try:
                return await self._backlog.publish(
                    channel, event, nonce, again=again, holder=holder, mark=mark
                )
            except StoreUnavailable as error:
                if isinstance(error, StoreCorrupt) or loop.time() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            again, pause = True, min(2 * pause, _LONGEST_PAUSE_SECONDS)
        raise BrokerClosed

    async def end_lapsed(self, channel: str, events: Sequence[Event]) -> bool:
        """Publish the end of a dialogue whose lease has lapsed; False if it has not.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return await self._backlog.end_lapsed(channel, events)

    async def reopen_unfinished(self) -> None:
        """Make sure that each dialogue that readers here know to be unfinished has a lease.

        If its process is dead and Redis was emptied, nobody else would end it.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        for channel, hub in list(self._hubs.items()):
            last, unfinished = max((reader.progress for reader in hub.readers), default=(START, False))
            if unfinished:
                with contextlib.suppress(StoreCorrupt):  # its readers get an error
                    await self._backlog.reopen(channel, last)

    @asynccontextmanager
    async def subscribe(self, channel: str, after: str | None) -> AsyncIterator[_RedisSubscription]:
        """Subscribe to a channel until the end of the block.

        It does not fail while Redis is unavailable: the reader gets missed events once Redis is back. Without
        `after`, the reader gets every event published after entering, provided that Redis answered in time.

        Raises:
            BrokerClosed: The service is shutting down.
            StoreCorrupt: The key of the events holds something else.
        """
        if self._closed:
            raise BrokerClosed
        position = parse_id(after) or await self._newest(channel)
        reader = _RedisSubscription(channel, self._backlog, position, self._queue)
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

    async def copy(self, source: str, target: str, before: Position) -> Copied | None:
        """Copy the stored events before a position to a channel that has none.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return await self._backlog.copy(source, target, before)

    async def stored(self, channel: str) -> AsyncGenerator[Sequence[Event], None]:
        """Iterate over the stored events of a channel, in pages.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        last = START
        while page := await self._backlog.after(channel, last, PAGE_EVENTS):
            yield [event for _, event in page if event is not None]
            last = page[-1][0]

    async def has_events(self, channel: str) -> bool:
        """Return whether events of a channel are stored.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return await self._backlog.has_events(channel)

    async def close(self) -> None:
        """End every subscription."""
        self._closed = True
        for hub in self._hubs.values():
            for reader in hub.readers:
                reader.mailbox.close()

    async def _newest(self, channel: str) -> Position | None:
        try:
            return await self._backlog.newest(channel)
        except StoreCorrupt:
            raise
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


def _keys(channel: str) -> tuple[str, str, str]:
    """Return the keys of a channel's events, of the beginnings of its turns, and of the events' size."""
    return f"sse:{channel}", f"{NAMESPACE}:{{{channel}}}:starts", f"{NAMESPACE}:{{{channel}}}:bytes"
