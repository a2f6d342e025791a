"""A broker in the memory of one process: events are lost with it, and other processes do not see them."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
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
    Mailbox,
    Mark,
)
from proxy.chat.event import Event, Position, format_id, parse_id
from proxy.chat.shares import Shares, nobody

TOTAL_EVENTS: Final = 200_000
"""Maximum number of events in all channels. An event counts as much as its share of the bytes, besides its
own: the visitor who uses most makes room with the channel that has the oldest last event."""
TOTAL_BYTES: Final = 256 << 20
"""Maximum size of all channels; see `TOTAL_EVENTS`."""


class _Backlog(msgspec.Struct):
    """The stored events of one channel, and when they expire."""

    events: deque[tuple[Position, Event, int]]
    """Each with its position and its size in bytes."""
    turns: deque[Position]
    """The positions where turns begin."""
    bytes: int = 0
    until: float = 0.0


class _MemorySubscription(msgspec.Struct):
    """A subscription: replayed events first, then live ones."""

    mailbox: Mailbox[Event]
    replayed: deque[Event] | None = None

    async def get(self) -> Event:
        if self.replayed:
            return self.replayed.popleft()
        self.replayed = None
        return await self.mailbox.get()


class MemoryBroker:
    """Publishes, stores and replays events. Channels without stored events and readers take no memory.

    Args:
        kept: Turns of a channel to keep.
        size: Bytes of a channel to keep.
        expire: Seconds after a channel's last event until its events are deleted.
        queue: Live events that may wait for one reader.
        total: Events of all channels to keep.
        total_bytes: Bytes of all channels to keep.
        visitor_of: Returns the visitor to whom a channel counts.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        kept: int = KEPT_TURNS,
        size: int = KEPT_BYTES,
        expire: float = EXPIRE_SECONDS,
        queue: int = QUEUE_EVENTS,
        total: int = TOTAL_EVENTS,
        total_bytes: int = TOTAL_BYTES,
        visitor_of: Callable[[str], str] = nobody,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kept = kept
        self._size = size
        self._expire = expire
        self._queue = queue
        self._total = total
        self._total_bytes = total_bytes
        self._event_share = total_bytes // total
        self._bytes = 0
        self._visitor_of = visitor_of
        self._shares = Shares()
        self._clock = clock
        self._last: Position = (0, 0)
        self._count = 0
        # Ordered by the last event, and therefore by expiry.
        self._backlogs: OrderedDict[str, _Backlog] = OrderedDict()
        self._readers: dict[str, set[Mailbox[Event]]] = {}
        self._closed = False

    async def publish(
        self,
        channel: str,
        event: Event,
        *,
        holder: str | None = None,  # noqa: ARG002  within one process, a lease does not lapse
        mark: Mark | None = None,
        retry_seconds: float | None = RETRY_SECONDS,  # noqa: ARG002  nothing can fail
    ) -> str:
        """Store and send an event, and return its id.

        Raises:
            BrokerClosed: The service is shutting down.
        """
        if self._closed:
            raise BrokerClosed
        position = self._next_position()
        numbered = replace(event, id=format_id(position))
        self._keep(channel, position, numbered, begins=mark == "turn")
        for mailbox in self._readers.get(channel, ()):
            mailbox.put(numbered)
        # Let readers run: otherwise a burst of events would overflow their queues.
        await asyncio.sleep(0)
        return format_id(position)

    @asynccontextmanager
    async def subscribe(self, channel: str, after: str | None) -> AsyncIterator[_MemorySubscription]:
        """Subscribe to a channel until the end of the block.

        Raises:
            BrokerClosed: The service is shutting down.
        """
        if self._closed:
            raise BrokerClosed
        mailbox = Mailbox[Event](self._queue)
        reader = _MemorySubscription(mailbox, self._after(channel, parse_id(after)))
        self._readers.setdefault(channel, set()).add(mailbox)
        try:
            yield reader
        finally:
            remaining = self._readers[channel]
            remaining.discard(mailbox)
            if not remaining:
                del self._readers[channel]

    async def forget(self, channel: str) -> None:
        """Delete the stored events of a channel."""
        self._drop(channel)

    async def copy(self, source: str, target: str, before: Position) -> Copied | None:
        """Copy the stored events before a position to a channel that has none."""
        self._expire_old()
        if target in self._backlogs:
            return None
        backlog = self._backlogs.get(source, _Backlog(deque(), deque()))
        events = deque(entry for entry in backlog.events if entry[0] < before)
        turns = deque(position for position in backlog.turns if position < before)
        size = sum(size for _, _, size in events)
        if events:
            self._backlogs[target] = _Backlog(events, turns, until=self._clock() + self._expire)
            self._account(target, len(events), size)
            self._make_room(target)
        return Copied(len(backlog.turns) - len(turns), size)

    async def stored(self, channel: str) -> AsyncGenerator[Sequence[Event], None]:
        """Iterate over the stored events of a channel, in pages."""
        self._expire_old()
        backlog = self._backlogs.get(channel, _Backlog(deque(), deque()))
        events = [event for _, event, _ in backlog.events]
        for start in range(0, len(events), PAGE_EVENTS):
            yield events[start : start + PAGE_EVENTS]
            await asyncio.sleep(0)

    async def has_events(self, channel: str) -> bool:
        """Return whether events of a channel are stored."""
        self._expire_old()
        backlog = self._backlogs.get(channel)
        return backlog is not None and bool(backlog.events)

    async def close(self) -> None:
        """End every subscription."""
        self._closed = True
        for mailboxes in self._readers.values():
            for mailbox in mailboxes:
                mailbox.close()

    def _next_position(self) -> Position:
        """Return a position after the last one, even if the clock was set back."""
        now = int(self._clock() * 1000)
        milliseconds, count = self._last
        self._last = (now, 0) if now > milliseconds else (milliseconds, count + 1)
        return self._last

    def _keep(self, channel: str, position: Position, event: Event, *, begins: bool) -> None:
        self._expire_old()
        backlog = self._backlogs.get(channel)
        if backlog is None:
            backlog = self._backlogs[channel] = _Backlog(deque(), deque())
        size = len(event.encode())
        backlog.events.append((position, event, size))
        self._account(channel, 1, size)
        if begins:
            backlog.turns.append(position)
        self._trim(channel, backlog)
        backlog.until = self._clock() + self._expire
        self._backlogs.move_to_end(channel)
        self._make_room(channel)

    def _make_room(self, spared: str) -> None:
        while self._count > self._total or self._bytes > self._total_bytes:
            oldest = self._shares.choose(self._backlogs, spared)
            if oldest is None:
                return
            self._drop(oldest)

    def _trim(self, channel: str, backlog: _Backlog) -> None:
        """Delete the oldest turns; a turn that is too large by itself loses its oldest events."""
        while len(backlog.turns) > 1 and (len(backlog.turns) > self._kept or backlog.bytes > self._size):
            backlog.turns.popleft()
            while backlog.events[0][0] < backlog.turns[0]:
                self._account(channel, -1, -backlog.events.popleft()[2])
        while backlog.bytes > self._size and len(backlog.events) > 1:
            self._account(channel, -1, -backlog.events.popleft()[2])

    def _account(self, channel: str, events: int, size: int) -> None:
        self._backlogs[channel].bytes += size
        self._count += events
        self._bytes += size
        self._shares.add(channel, size + events * self._event_share, self._visitor_of(channel))

    def _expire_old(self) -> None:
        now = self._clock()
        while self._backlogs:
            channel, backlog = next(iter(self._backlogs.items()))
            if backlog.until > now:
                return
            self._drop(channel)

    def _drop(self, channel: str) -> None:
        backlog = self._backlogs.pop(channel, None)
        if backlog is not None:
            self._count -= len(backlog.events)
            self._bytes -= backlog.bytes
            self._shares.remove(channel, backlog.bytes + len(backlog.events) * self._event_share)

    def _after(self, channel: str, position: Position | None) -> deque[Event] | None:
        self._expire_old()
        backlog = self._backlogs.get(channel)
        if position is None or backlog is None:
            return None
        return deque(event for place, event, _ in backlog.events if place > position)
