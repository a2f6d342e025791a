"""A request body that is counted as it arrives, bounded, and read with backpressure.

Quart's own body counts only what has not been read yet, and takes in whatever arrives, however slowly it is
read; so a streamed body of any size passes its limit, and a slow upstream fills the memory.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from quart.wrappers.request import Body

from proxy.errors import BodyTimeout, BodyTooLarge

BUFFER_BYTES: Final = 256 * 1024
"""What may wait here unread; beyond it the caller's connection is not read on."""


class BoundedBody(Body):
    """The body of one request: the server puts chunks in, one reader takes them out.

    Args:
        expected_content_length: As announced, if it was.
        max_content_length: The limit in bytes.
    """

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, None)
        self.limit = max_content_length if max_content_length is not None else 1 << 62
        self.received = 0
        self.timeout: float | None = None
        """Seconds that the reader waits for the next chunk."""
        self._drained = asyncio.Event()
        if expected_content_length is not None and expected_content_length > self.limit:
            self._must_raise = BodyTooLarge(self.limit)

    async def put(self, data: bytes, *, last: bool) -> None:
        """Take a chunk in; returns once there is room for the next one."""
        self.received += len(data)
        if self.received > self.limit:
            self._must_raise = BodyTooLarge(self.limit)
        if self._must_raise is not None:
            self._data.clear()
            self.set_complete()
            return
        self._data += data
        if last:
            self.set_complete()
        elif self._data:
            self._has_data.set()
        if len(self._data) > BUFFER_BYTES and not last:
            self._drained.clear()
            await self._drained.wait()

    def __aiter__(self) -> "BoundedBody":
        return self

    async def __anext__(self) -> bytes:
        """The bytes that have arrived since.

        Raises:
            BodyTooLarge, BodyTimeout
        """
        if not self._complete.is_set() and not self._data and self._must_raise is None:
            try:
                async with asyncio.timeout(self.timeout):
                    await self._has_data.wait()
            except TimeoutError as error:
                raise BodyTimeout from error
        if self._must_raise is not None:
            raise self._must_raise
        if not self._data:
            raise StopAsyncIteration
        data = bytes(self._data)
        self._data.clear()
        if not self._complete.is_set():
            self._has_data.clear()
        self._drained.set()
        return data

    async def read(self, limit: int) -> bytes:
        """Up to `limit` bytes or a chunk more, at once; fewer where the body ends before.

        `finished` tells afterwards whether that was all.
        """
        held = bytearray()
        async for chunk in self:
            held += chunk
            if len(held) > limit:
                break
        return bytes(held)

    @property
    def finished(self) -> bool:
        """Whether the whole body has been read."""
        return self._complete.is_set() and not self._data and self._must_raise is None


async def rest_of(head: bytes, body: BoundedBody) -> AsyncIterator[bytes]:
    """What was read already, then what still comes."""
    yield head
    async for chunk in body:
        yield chunk
