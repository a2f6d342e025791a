"""A request body of limited size that is read with backpressure.

Quart's own body buffers everything that it receives. So a slow upstream would fill the memory, and a streamed
body could exceed the limit.
"""

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Final, cast

from proxy.errors import BodyTimeout, BodyTooLarge, CallerError, RateLimited, ServerOverloaded
from proxy.settings import Limits

BUFFER_BYTES: Final = 256 * 1024
"""The unread bytes above which we stop reading from the caller's connection."""

AsgiReceive = Callable[[], Awaitable[Mapping[str, object]]]
"""The `receive` of ASGI."""


class HeldBytes:
    """Counts the bytes of all request bodies that are held at once, in total and by caller."""

    def __init__(self) -> None:
        self.total = 0
        self.by_caller = Counter[str]()

    def holding(
        self, caller: str, limits: Limits
    ) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """Return a context manager that yields a function, which counts bytes of one request until the end.

        The function raises:
            ServerOverloaded: The total would exceed its limit.
            RateLimited: The total of the caller would exceed its limit.
        """
        return _Holding(self, caller, limits)


class _Holding(contextlib.AbstractContextManager[Callable[[int], None]]):
    """The bytes of one request; a generator would cost several times as much."""

    def __init__(self, all_held: HeldBytes, caller: str, limits: Limits) -> None:
        self._all = all_held
        self._caller = caller
        self._limits = limits
        self._held = 0

    def __enter__(self) -> Callable[[int], None]:
        return self._hold

    def __exit__(self, *_: object) -> None:
        by_caller, caller = self._all.by_caller, self._caller
        self._all.total -= self._held
        by_caller[caller] -= self._held
        if not by_caller[caller]:
            del by_caller[caller]

    def _hold(self, size: int) -> None:
        by_caller, caller, limits = self._all.by_caller, self._caller, self._limits
        if self._all.total + size > limits.total_held_bytes:
            raise ServerOverloaded(reason="the bodies of all callers exceed limits.total_held_bytes")
        if by_caller[caller] + size > limits.held_bytes_per_caller:
            raise RateLimited(
                "too many bytes of requests at once",
                reason="the bodies of the caller exceed limits.held_bytes_per_caller",
            )
        self._held += size
        self._all.total += size
        by_caller[caller] += size


class BoundedBody:
    """The body of one request. The server puts chunks in, one reader takes them out.

    It has the public interface of `quart.wrappers.request.Body` and shares no code with it: Quart constructs
    it, iterates over it, awaits it, and calls `clear` and `set_result`.

    Args:
        expected_content_length: The value of the Content-Length header, if there is one.
        max_content_length: The limit in bytes.
    """

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        self.limit = max_content_length if max_content_length is not None else sys.maxsize
        self.timeout: float | None = None
        """Seconds that the reader waits for the next chunk."""
        self.failure: CallerError | None = None
        """Why the rest of the body cannot be read."""
        self.withheld = False
        """Whether the caller waits for `100 Continue` before it sends the body."""
        self.wanted = asyncio.Event()
        """Set by the first read, so that the server then sends `100 Continue` for a withheld body."""
        self._receive: AsgiReceive | None = None
        self._has_body: Callable[[], bool] = bool
        self.received = 0
        self._expected = expected_content_length
        self._unread = bytearray()
        self._whole: bytes | None = None
        self._arrived = asyncio.Event()
        self._complete = asyncio.Event()
        self._drained = asyncio.Event()
        self._discarding = False
        if expected_content_length is not None and expected_content_length > self.limit:
            self.failure = BodyTooLarge(self.limit)

    def read_from(self, receive: AsgiReceive | None, has_body: Callable[[], bool] = bool) -> None:
        """Let the reader call `receive`; otherwise chunks are put in.

        Args:
            receive: The `receive` of ASGI.
            has_body: Whether bytes of the body, or its end, wait to be received.
        """
        self._receive, self._has_body = receive, has_body

    async def put(self, data: bytes, *, last: bool) -> None:
        """Add a chunk; return when there is room for the next one."""
        self._add(data, last=last)
        while self.unread > BUFFER_BYTES and not (last or self._discarding):
            self._drained.clear()
            await self._drained.wait()

    def _add(self, data: bytes, *, last: bool) -> None:
        self.received += len(data)
        if self.received > self.limit:
            self.failure = BodyTooLarge(self.limit)
        if self.failure is None and not self._discarding:
            self._unread += data
        if last or self.received == self._expected:  # Some servers report the end in a message of its own.
            self._complete.set()
        if last or data:
            self._arrived.set()

    def set_result(self, data: bytes) -> None:
        """Set the whole body at once, as Quart's test request contexts do."""
        self._unread += data
        self._complete.set()
        self._arrived.set()

    def __aiter__(self) -> "BoundedBody":
        return self

    async def __anext__(self) -> bytes:
        """Return the bytes that arrived since the last read.

        Raises:
            BodyTooLarge, BodyTimeout
        """
        await self._wait()
        if not self._unread:
            raise StopAsyncIteration
        data = bytes(self._unread)
        self._unread.clear()
        if not self._complete.is_set():
            self._arrived.clear()
        self._drained.set()
        return data

    async def peek(self) -> bytes:
        """Return up to 64 bytes of the beginning without consuming them; no bytes if the body is empty.

        Raises:
            BodyTooLarge, BodyTimeout
        """
        await self._wait()
        return bytes(self._unread[:64])

    async def _wait(self) -> None:
        if not (self._unread or self.failure or self._complete.is_set()):
            self.wanted.set()
            if self._has_body():
                await self._wait_for(self._arrived)
            else:
                try:
                    async with asyncio.timeout(self.timeout):
                        await self._wait_for(self._arrived)
                except TimeoutError:
                    self.failure = BodyTimeout()
        if self.failure is not None:
            raise self.failure

    async def _wait_for(self, event: asyncio.Event) -> None:
        """Wait until a chunk or the end has arrived; receive them if nobody puts them in."""
        while self._receive is not None and not event.is_set():
            message = await self._receive()
            if message["type"] != "http.request":
                break  # The caller has left, which cancels the request.
            body = cast(bytes, message.get("body", b""))
            self._add(body, last=not message.get("more_body", False))
        await event.wait()

    async def read(self, limit: int, hold: Callable[[int], None] | None = None) -> bytes:
        """Read to the end of the body, or until more than `limit` bytes are read.

        Check `finished` afterwards to distinguish the two cases.

        Args:
            limit: The limit in bytes.
            hold: Counts bytes as they are read; it may raise.
        """
        held = bytearray()
        async for chunk in self:
            if hold is not None:
                hold(len(chunk))
            held += chunk
            if len(held) > limit:
                break
        return bytes(held)

    def __await__(self) -> Generator[object, None, bytes]:
        """Return the whole body. It stays available for the next await, as Quart's parsers expect."""
        return self._read_whole().__await__()

    async def _read_whole(self) -> bytes:
        if self._whole is None:
            self._whole = await self.read(self.limit)
        return self._whole

    def clear(self) -> None:
        """Forget the body that an earlier await returned: Quart calls this when it must not be cached."""
        self._whole = b""

    async def discard(self, seconds: float) -> None:
        """Drop all further bytes for a while, because a caller that is still sending reads no response."""
        if self.withheld and not self.wanted.is_set():
            return  # Nothing arrives, and the caller waits for the response.
        self._discarding = True
        self._unread.clear()
        self._drained.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wait_for(self._complete)

    @property
    def unread(self) -> int:
        """The number of received bytes that were not read yet."""
        return len(self._unread)

    @property
    def finished(self) -> bool:
        """Whether the whole body has been read."""
        return self._complete.is_set() and not self._unread and self.failure is None
