"""The broker's interface, and the queue of events for one reader that both brokers use."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Generic, Literal, Protocol, TypeVar

import msgspec

from proxy.chat.event import Event, Position

KEPT_TURNS: Final = 500
"""Questions of a channel that are kept for replay, with their answers."""
KEPT_BYTES: Final = 4 << 20
"""Bytes of a channel that are kept for replay."""
EXPIRE_SECONDS: Final = 3600.0
"""Time after a channel's last event until its events are deleted."""
PAGE_EVENTS: Final = 100
"""Stored events that are read at once; a reader holds no more replayed events than these."""
QUEUE_EVENTS: Final = 256
"""Live events that may wait for one reader before it is disconnected."""
RETRY_SECONDS: Final = 5.0
"""How long publishing an event is retried while Redis restarts."""

Mark = Literal["turn", "end"]
"""An event that begins a turn, or that ends a dialogue and releases its lease."""

Item = TypeVar("Item")


class SlowReader(Exception):
    """The reader did not take its events in time. It may reconnect with the id of its last event."""


class BrokerClosed(Exception):
    """The service is shutting down; no more events will come."""


class LeaseLost(Exception):
    """The dialogue was ended by another process, because its lease had lapsed."""


class Subscription(Protocol):
    """One reader of one channel."""

    async def get(self) -> Event:
        """Return the next event: first the replayed ones, then live ones, with no gap and no duplicate.

        It does not time out. A timeout around it loses no event.

        Raises:
            SlowReader: More events were waiting than the queue holds.
            BrokerClosed: The service is shutting down, and all earlier events have been returned.
        """
        ...


class Broker(Protocol):
    """Publishes the events of channels, and keeps them for a while so that they can be replayed."""

    async def publish(
        self,
        channel: str,
        event: Event,
        *,
        holder: str | None = None,
        mark: Mark | None = None,
        retry_seconds: float | None = RETRY_SECONDS,
    ) -> str:
        """Store an event, send it to all current readers, and return its id, without waiting for a reader.

        Whole turns are deleted, the oldest first, if there are too many turns or bytes. A turn that is too
        large by itself loses its oldest events.

        Args:
            holder: The holder of the lease of the dialogue that publishes. The lease is renewed.
            mark: What the event begins or ends.
            retry_seconds: Seconds during which failures are retried; None until the service shuts down.

        Raises:
            StoreUnavailable: Redis did not answer; the event may or may not have been published.
            LeaseLost: The lease is another's; nothing was published.
            BrokerClosed: The service is shutting down.
        """
        ...

    def subscribe(self, channel: str, after: str | None) -> AbstractAsyncContextManager[Subscription]:
        """Subscribe to a channel.

        Args:
            after: The id after which events are replayed, `0-0` for all stored events, or None for live
                events only. Anything that is not an id (`ms-seq`) counts as None.
        """
        ...

    async def forget(self, channel: str) -> None:
        """Delete the stored events of a channel."""
        ...

    async def copy(self, source: str, target: str, before: Position) -> "Copied | None":
        """Copy the stored events before a position to a channel that has none, under the same ids.

        Returns:
            What was copied; None if the target is not new.
        """
        ...

    def stored(self, channel: str) -> AsyncGenerator[Sequence[Event], None]:
        """Iterate over the stored events of a channel, from the oldest on, in small pages.

        Other tasks may run between two pages.
        """
        ...

    async def has_events(self, channel: str) -> bool:
        """Return whether events of a channel are stored."""
        ...

    async def close(self) -> None:
        """End every subscription with `BrokerClosed`, and close connections."""
        ...


class Copied(msgspec.Struct, frozen=True):
    """What was copied from a channel to another one."""

    later: int
    """How many turns of the source begin after the copied events."""
    bytes: int
    """The size of the copied events."""


class Mailbox(Generic[Item]):
    """A bounded queue for one reading task. The writer never waits; an empty queue takes about 200 bytes.

    Args:
        size: How many items may wait; one more disconnects the reader.
    """

    __slots__ = ("_closed", "_items", "_overflowed", "_size", "_waiter")

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[Item] | None = None  # an empty deque alone takes 600 bytes
        self._waiter: asyncio.Future[None] | None = None
        self._overflowed = False
        self._closed = False

    def put(self, item: Item) -> None:
        """Add an item. After an overflow, this item and all waiting ones are dropped."""
        if self._overflowed or self._closed:
            return
        if self._items is None:
            self._items = deque()
        if len(self._items) >= self._size:
            self._overflowed = True
            self._items = None
        else:
            self._items.append(item)
        self._wake()

    @property
    def closed(self) -> bool:
        """Whether no more items will come."""
        return self._closed

    def close(self) -> None:
        """Accept no more items."""
        self._closed = True
        self._wake()

    async def get(self) -> Item:
        """Return the next item. A cancelled call takes none.

        Raises:
            SlowReader: The queue overflowed.
            BrokerClosed: The queue is closed, and all its items have been taken.
        """
        while not self._items:
            self._items = None
            if self._overflowed:
                raise SlowReader
            if self._closed:
                raise BrokerClosed
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:  # Another reader may wait by now if this one was cancelled.
                    self._waiter = None
        return self._items.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
