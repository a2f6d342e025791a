"""A request body that is counted as it arrives, bounded, and read with backpressure.

Quart's own body counts only what has not been read yet, and takes in whatever arrives, however slowly it is
read; so a streamed body of any size passes its limit, and a slow upstream fills the memory.
"""

import asyncio
import contextlib
import sys
from collections.abc import Generator
from typing import Any, Final

from quart.wrappers.request import Body

from proxy.errors import BodyTimeout, BodyTooLarge, CallerError

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
        self.limit = max_content_length if max_content_length is not None else sys.maxsize
        self.timeout: float | None = None
        """Seconds that the reader waits for the next chunk."""
        self.failure: CallerError | None = None
        """Why the body cannot be read to its end, once that is so."""
        self.received = 0
        self._drained = asyncio.Event()
        self._discarding = False
        if expected_content_length is not None and expected_content_length > self.limit:
            self.failure = BodyTooLarge(self.limit)

    async def put(self, data: bytes, *, last: bool) -> None:
        """Take a chunk in; returns once there is room for the next one."""
        self.received += len(data)
        if self.received > self.limit:
            self.failure = BodyTooLarge(self.limit)
        if self.failure is None and not self._discarding:
            self._data += data
        if last:
            self.set_complete()
        elif data:
            self._has_data.set()
        while len(self._data) > BUFFER_BYTES and not (last or self._discarding):
            self._drained.clear()
            await self._drained.wait()

    def __aiter__(self) -> "BoundedBody":
        return self

    async def __anext__(self) -> bytes:
        """The bytes that have arrived since.

        Raises:
            BodyTooLarge, BodyTimeout
        """
        if not (self._data or self.failure or self._complete.is_set()):
            try:
                async with asyncio.timeout(self.timeout):
                    await self._has_data.wait()
            except TimeoutError:
                self.failure = BodyTimeout()
        if self.failure is not None:
            raise self.failure
        if not self._data:
            raise StopAsyncIteration
        data = bytes(self._data)
        self._data.clear()
        if not self._complete.is_set():
            self._has_data.clear()
        self._drained.set()
        return data

    async def read(self, limit: int) -> bytes:
        """What comes until the end of the body, or until more than `limit` bytes are there.

        `finished` tells afterwards which it was.
        """
        held = bytearray()
        async for chunk in self:
            held += chunk
            if len(held) > limit:
                break
        return bytes(held)

    def __await__(self) -> Generator[Any, None, bytes]:
        """The whole body, for whoever parses it; Quart's own would wait for room that nobody makes."""
        return self._whole().__await__()

    async def _whole(self) -> bytes:
        self._data[:] = await self.read(self.limit)
        return bytes(self._data)

    async def discard(self, seconds: float) -> None:
        """Let the rest go by for a while: a caller who is still sending would not read an early answer."""
        self._discarding = True
        self._data.clear()
        self._drained.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._complete.wait()

    @property
    def finished(self) -> bool:
        """Whether the whole body has been read."""
        return self._complete.is_set() and not self._data and self.failure is None
