"""What waits for one reader: a bounded queue that its writer never waits for."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

from proxy.chat.broker import BrokerClosed, SlowReader

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """A queue for one reader, of which one task reads; an empty one costs about 200 bytes.

    Args:
        size: How many items may wait; one more cuts the reader.
    """

    __slots__ = ("_closed", "_cut", "_items", "_size", "_waiter")

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[Item] | None = None  # an empty deque alone is 600 bytes
        self._waiter: asyncio.Future[None] | None = None
        self._cut = False
        self._closed = False

    def put(self, item: Item) -> None:
        """Add an item; to a reader that was cut it goes lost, as all that waited."""
        if self._cut or self._closed:
            return
        if self._items is None:
            self._items = deque()
        if len(self._items) >= self._size:
            self._cut = True
            self._items = None
        else:
            self._items.append(item)
        self._wake()

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._wake()

    async def get(self) -> Item:
        """The next item. A cancelled wait takes none.

        Raises:
            SlowReader: too many were waiting.
            BrokerClosed: all were taken, and no more will come.
        """
        while not self._items:
            self._items = None
            if self._cut:
                raise SlowReader
            if self._closed:
                raise BrokerClosed
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._items.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
