"""A broker over Redis, for several processes, and for Flask sites with flask-sse on the same Redis.

Live events go through pub/sub on the bare name of the channel, as flask-sse's do. Besides, each is kept in a
stream (`backlog.py`), out of which a reader gets what it missed: before it came, and while the connection to
Redis was lost. What flask-sse publishes has no id; it comes live, and is not replayed.

A process has one connection for all that it listens to (`live_feed.py`), and hands out in itself.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from proxy.chat.backlog import Backlog
from proxy.chat.broker import EXPIRE_SECONDS, KEPT_EVENTS, QUEUE_EVENTS, BrokerClosed
from proxy.chat.event import Event, Position, parse_id
from proxy.chat.live_feed import LiveFeed
from proxy.chat.mailbox import Mailbox
from proxy.redis_connection import RedisConnection, StoreUnavailable
from proxy.telemetry import get_logger

PATIENCE_SECONDS: Final = 5.0
"""For one publication while Redis restarts; then it fails."""
PAGE_EVENTS: Final = 100
"""Read from a backlog at once; a reader holds no more of what is replayed to it."""
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0


class _LookUp:
    """In a mailbox: what was published before this point has to be looked up in the backlog."""


_LOOK_UP: Final = _LookUp()


class _Reader:
    """One reader of one channel.

    Live events wait in its mailbox. Where the feed went live there is a mark among them; at the mark, the
    backlog is read from the last event on, and live events that were read so already are dropped. What came
    before the first mark is dropped as well: the backlog has it, and what came before that.
    """

    __slots__ = (
        "_backlog",
        "_channel",
        "_last",
        "_looking",
        "_placed",
        "_read_up_to",
        "_replayed",
        "mailbox",
    )

    def __init__(self, channel: str, backlog: Backlog, after: Position | None, queue: int) -> None:
        self.mailbox = Mailbox[Event | _LookUp](queue)
        self._channel = channel
        self._backlog = backlog
        self._last = self._read_up_to = after
        self._placed = False
        self._looking = False
        self._replayed: deque[Event] | None = None

    async def get(self) -> Event:
        """See `Subscription`."""
        while True:
            if self._replayed:
                return self._replayed.popleft()
            self._replayed = None
            if self._looking:
                await self._look_up()
                continue
            item = await self.mailbox.get()
            if isinstance(item, _LookUp):
                self._placed = self._looking = True
            elif item.position is None:  # not ours
                return item
            elif self._placed and (self._read_up_to is None or item.position > self._read_up_to):
                self._last = item.position
                return item

    async def _look_up(self) -> None:
        """Read the next page of the backlog, however long Redis is away."""
        pause = _FIRST_PAUSE_SECONDS
        while not self.mailbox.closed:
            try:
                await self._read_page()
            except StoreUnavailable:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                return
        self._looking = False

    async def _read_page(self) -> None:
        if self._last is None:  # live only, and Redis was away when it came: from here on
            self._last = await self._backlog.newest(self._channel)
            self._looking = False
            return
        page = await self._backlog.after(self._channel, self._last, PAGE_EVENTS)
        if page:
            self._last = self._read_up_to = page[-1][0]
            self._replayed = deque(event for _, event in page if event is not None)
        self._looking = len(page) == PAGE_EVENTS


class _Hub:
    """The readers of one channel in this process; hears the channel for them."""

    __slots__ = ("_log", "live", "readers")

    def __init__(self) -> None:
        self.readers: set[_Reader] = set()
        self.live: asyncio.Event | None = None
        self._log = get_logger("chat")

    def went_live(self) -> None:
        for reader in self.readers:
            reader.mailbox.put(_LOOK_UP)
        if self.live is not None:
            self.live.set()

    def arrived(self, payload: bytes) -> None:
        try:
            event = Event.from_envelope(payload)
        except ValueError:  # anybody may publish there
            self._log.warning("chat_message_unreadable", bytes=len(payload))
            return
        for reader in self.readers:
            reader.mailbox.put(event)


class RedisBroker:
    """Publishes, keeps and replays over Redis; made by `open_redis_broker`.

    Args:
        redis: The way to Redis.
        feed: What listens; whoever makes the broker lets it run.
        kept: Events of a channel, and up to a hundred more.
        expire: Seconds after a channel's last event until nothing of it is kept.
        queue: Events that may wait for one reader.
        patience: Seconds for one publication, attempts and pauses together.
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
        """Keep and send an event; its id. While Redis restarts it waits, for a few seconds.

        Raises:
            StoreUnavailable: Redis could not be asked; whether the event was published is not known.
            BrokerClosed: the service ends.
        """
        number, again, pause = Backlog.number(), False, _FIRST_PAUSE_SECONDS
        deadline = asyncio.get_running_loop().time() + self._patience
        while not self._closed:
            try:
                return await self._backlog.publish(channel, event, number, again=again)
            except StoreUnavailable:
                if asyncio.get_running_loop().time() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            again, pause = True, min(2 * pause, _LONGEST_PAUSE_SECONDS)
        raise BrokerClosed

    @asynccontextmanager
    async def subscribe(self, channel: str, after: str | None) -> AsyncIterator[_Reader]:
        """Listen to a channel until the end of the block.

        It does not fail where Redis is away: what was missed comes when Redis does. Without an `after`, what
        is published once this has been entered comes, provided that Redis answered in time.

        Raises:
            BrokerClosed: the service ends.
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
                reader.mailbox.put(_LOOK_UP)
            elif parse_id(after) is None:
                await self._wait_until_live(hub)
            yield reader
        finally:
            hub.readers.discard(reader)
            if not hub.readers:
                del self._hubs[channel]
                self._feed.leave(channel)

    async def forget(self, channel: str) -> None:
        """Keep nothing of what was published so far.

        Raises:
            StoreUnavailable: Redis could not be asked.
        """
        await self._backlog.forget(channel)

    async def knows(self, channel: str) -> bool:
        """Whether anything of a channel is kept.

        Raises:
            StoreUnavailable: Redis could not be asked.
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
            pass  # the mark comes when the feed does
        else:
            hub.live = None
