"""A broker within one process: nothing survives it, and no other process hears of it."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from proxy.chat.broker import EXPIRE_SECONDS, KEPT_EVENTS, QUEUE_EVENTS, BrokerClosed
from proxy.chat.event import Event, Position, format_id, parse_id
from proxy.chat.mailbox import Mailbox

TOTAL_EVENTS: Final = 200_000
"""Kept of all channels together; then the channel that was silent longest is forgotten."""


CHANNEL_BYTES: Final = 4 << 20
"""Kept of one channel at most; then its oldest events go."""
TOTAL_BYTES: Final = 256 << 20
"""Kept of all channels together at most; then the channel that was silent longest is forgotten."""


@dataclass(slots=True)
class _Backlog:
    """What is kept of one channel, and until when."""

    events: deque[tuple[Position, Event, int]]
    """Each with its bytes."""
    bytes: int = 0
    until: float = 0.0


@dataclass(slots=True)
class _Reader:
    """A subscription: what is replayed, then what comes."""

    mailbox: Mailbox[Event]
    replayed: deque[Event] | None = field(default=None)

    async def get(self) -> Event:
        if self.replayed:
            return self.replayed.popleft()
        self.replayed = None
        return await self.mailbox.get()


class MemoryBroker:
    """Keeps and sends in this process. Channels cost nothing once they are silent and nobody listens.

    Args:
        kept: Events of a channel.
        expire: Seconds after a channel's last event until nothing of it is kept.
        queue: Events that may wait for one reader.
        total: Events of all channels.
        total_bytes: Of all channels.
        channel_bytes: Of one.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        kept: int = KEPT_EVENTS,
        expire: float = EXPIRE_SECONDS,
        queue: int = QUEUE_EVENTS,
        total: int = TOTAL_EVENTS,
        total_bytes: int = TOTAL_BYTES,
        channel_bytes: int = CHANNEL_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kept = kept
        self._expire = expire
        self._queue = queue
        self._total = total
        self._total_bytes = total_bytes
        self._channel_bytes = channel_bytes
        self._bytes = 0
        self._clock = clock
        self._last: Position = (0, 0)
        self._count = 0
        # In the order of the last event, and so of expiry.
        self._backlogs: OrderedDict[str, _Backlog] = OrderedDict()
        self._readers: dict[str, set[Mailbox[Event]]] = {}
        self._closed = False

    async def publish(self, channel: str, event: Event) -> str:
        """Keep and send an event; its id.

        Raises:
            BrokerClosed: the service ends.
        """
        if self._closed:
            raise BrokerClosed
        position = self._next_position()
        numbered = replace(event, id=format_id(position))
        self._keep(channel, position, numbered)
        for mailbox in self._readers.get(channel, ()):
            mailbox.put(numbered)
        # Nothing here waits: without this a burst would overflow the queue of a reader that could not run.
        await asyncio.sleep(0)
        return format_id(position)

    @asynccontextmanager
    async def subscribe(self, channel: str, after: str | None) -> AsyncIterator[_Reader]:
        """Listen to a channel until the end of the block.

        Raises:
            BrokerClosed: the service ends.
        """
        if self._closed:
            raise BrokerClosed
        mailbox = Mailbox[Event](self._queue)
        reader = _Reader(mailbox, self._after(channel, parse_id(after)))
        self._readers.setdefault(channel, set()).add(mailbox)
        try:
            yield reader
        finally:
            left = self._readers[channel]
            left.discard(mailbox)
            if not left:
                del self._readers[channel]

    async def forget(self, channel: str) -> None:
        """Keep nothing of what was published so far."""
        self._drop(channel)

    async def knows(self, channel: str) -> bool:
        """Whether anything of a channel is kept."""
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
        """Later than the last one, whatever the clock says."""
        now = int(self._clock() * 1000)
        milliseconds, count = self._last
        self._last = (now, 0) if now > milliseconds else (milliseconds, count + 1)
        return self._last

    def _keep(self, channel: str, position: Position, event: Event) -> None:
        self._expire_old()
        backlog = self._backlogs.get(channel)
        if backlog is None:
            backlog = self._backlogs[channel] = _Backlog(deque())
        size = len(event.encode())
        backlog.events.append((position, event, size))
        self._take(backlog, 1, size)
        while len(backlog.events) > self._kept or (
            backlog.bytes > self._channel_bytes and len(backlog.events) > 1
        ):
            self._take(backlog, -1, -backlog.events.popleft()[2])
        backlog.until = self._clock() + self._expire
        self._backlogs.move_to_end(channel)
        while (self._count > self._total or self._bytes > self._total_bytes) and len(self._backlogs) > 1:
            self._drop(next(iter(self._backlogs)))

    def _take(self, backlog: _Backlog, events: int, size: int) -> None:
        backlog.bytes += size
        self._count += events
        self._bytes += size

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
            self._take(backlog, -len(backlog.events), -backlog.bytes)

    def _after(self, channel: str, position: Position | None) -> deque[Event] | None:
        self._expire_old()
        backlog = self._backlogs.get(channel)
        if position is None or backlog is None:
            return None
        return deque(event for place, event, _ in backlog.events if place > position)
