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

from proxy.errors import BodyTimeout, BodyTooLarge, Draining, ProxyError, RateLimited, ServerOverloaded
from proxy.settings import Limits

DISCARD_SECONDS: Final = 1.0
"""How long bytes of a rejected request are dropped, so that its caller can read the response."""
BUFFER_BYTES: Final = 256 * 1024
"""The unread bytes above which we stop reading from the caller's connection."""

AsgiReceive = Callable[[], Awaitable[Mapping[str, object]]]
"""The `receive` of ASGI."""


class HeldBytes:
    """Counts the bytes of all request bodies and WebSocket messages that are held, in total and by caller."""

    def __init__(self) -> None:
        self.total = 0
        self.by_caller = Counter[str]()


class Holding:
    """The bytes that one request or WebSocket holds; `release` must follow.

    Args:
        all_held: The bytes of all requests.
        caller: The name of the caller.
        limits: The `[limits]` section.
    """

    def __init__(self, all_held: HeldBytes, caller: str, limits: Limits) -> None:
        self._all = all_held
        self._caller = caller
        self._limits = limits
        self._held = 0

    def add(self, size: int) -> None:
        """Count bytes.

        Raises:
            ServerOverloaded: The total would exceed its limit.
            RateLimited: The total of the caller would exceed its limit.
        """
        by_caller, caller, limits = self._all.by_caller, self._caller, self._limits
        if self._all.total + size > limits.total_held_bytes:
            raise ServerOverloaded(
                reason="the bodies and messages of all callers exceed limits.total_held_bytes"
            )
        if by_caller[caller] + size > limits.held_bytes_per_caller:
            raise RateLimited(
                "too many bytes of requests at once",
                reason="the bodies and messages of the caller exceed limits.held_bytes_per_caller",
            )
        self._held += size
        self._all.total += size
        by_caller[caller] += size

    def release(self) -> None:
        """Count none of them any more. Further ones may follow."""
        by_caller, caller = self._all.by_caller, self._caller
        self._all.total -= self._held
        by_caller[caller] -= self._held
        self._held = 0
        if not by_caller[caller]:
            del by_caller[caller]


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
        self.watch_wait: Callable[[BoundedBody], contextlib.AbstractContextManager[None]] | None = None
        """Watches each wait for the caller, and calls `stop` when the service ends."""
        self.failure: ProxyError | None = None
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
        self._complete = False
        """Whether all of it has arrived."""
        self._discarding = False
        # Futures instead of events: most bodies have arrived before anybody waits.
        self._deadline: asyncio.Timeout | None = None
        """That of the current wait for the caller."""
        self._reader: asyncio.Future[None] | None = None
        """Pending while the reader waits for the next chunk or the end."""
        self._writer: asyncio.Future[None] | None = None
        """Pending while `put` waits for room."""
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
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    def _add(self, data: bytes, *, last: bool) -> None:
        self.received += len(data)
        if self.received > self.limit:
            self.failure = BodyTooLarge(self.limit)
        if self.failure is None and not self._discarding:
            self._unread += data
        if last or self.received == self._expected:  # Some servers report the end in a message of its own.
            self._complete = True
        _wake(self._reader)

    def set_result(self, data: bytes) -> None:
        """Set the whole body at once, as Quart's test request contexts do."""
        self._unread += data
        self._complete = True
        _wake(self._reader)

    def __aiter__(self) -> "BoundedBody":
        return self

    async def __anext__(self) -> bytes:
        """Return the bytes that arrived since the last read.

        Raises:
            BodyTooLarge, BodyTimeout, Draining
        """
        if data := await self._next():
            return data
        raise StopAsyncIteration

    async def _next(self) -> bytes:
        """Return the bytes that arrived since the last read; none at the end."""
        await self._wait()
        data = bytes(self._unread)
        self._unread.clear()
        _wake(self._writer)
        return data

    async def peek(self) -> bytes:
        """Return up to 64 bytes of the beginning without consuming them; no bytes if the body is empty.

        Raises:
            BodyTooLarge, BodyTimeout, Draining
        """
        await self._wait()
        return bytes(self._unread[:64])

    async def _wait(self) -> None:
        if not self._has_arrived():
            self.wanted.set()
            if self._has_body():
                await self._wait_until(self._has_arrived)
            else:
                await self._wait_for_caller()
        if self.failure is not None:
            raise self.failure

    async def _wait_for_caller(self) -> None:
        watched = contextlib.nullcontext() if self.watch_wait is None else self.watch_wait(self)
        try:
            async with asyncio.timeout(self.timeout) as self._deadline:
                with watched:
                    await self._wait_until(self._has_arrived)
        except TimeoutError:
            self.failure = self.failure or BodyTimeout()
        finally:
            self._deadline = None

    def stop(self) -> None:
        """Make the reader that waits for the caller raise `Draining`; see `proxy.drain.Stoppable`."""
        deadline = self._deadline
        if deadline is not None and not deadline.expired():
            self.failure = self.failure or Draining()
            deadline.reschedule(asyncio.get_running_loop().time())

    def _has_arrived(self) -> bool:
        """Whether the reader need not wait."""
        return bool(self._unread) or self._complete or self.failure is not None

    async def _wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait until enough of the body has arrived; receive it if nobody puts it in."""
        while not reached():
            message = None if self._receive is None else await self._receive()
            if message is not None and message["type"] == "http.request":
                body = cast(bytes, message.get("body", b""))
                self._add(body, last=not message.get("more_body", False))
            else:  # Somebody puts it in; or the caller has left, which cancels the request.
                self._reader = asyncio.get_running_loop().create_future()
                await self._reader

    async def read(self, limit: int, hold: Callable[[int], None] | None = None) -> bytes:
        """Read to the end of the body, or until more than `limit` bytes are read.

        Check `finished` afterwards to distinguish the two cases.

        Args:
            limit: The limit in bytes.
            hold: Counts bytes as they are read; it may raise.
        """
        held = bytearray()
        while len(held) <= limit and (chunk := await self._next()):
            if hold is not None:
                hold(len(chunk))
            if self._complete and not held:
                return chunk
            held += chunk
            if self._complete:
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

    async def discard(self, seconds: float = DISCARD_SECONDS) -> None:
        """Drop all further bytes for a while, because a caller that is still sending reads no response."""
        if self.withheld and not self.wanted.is_set():
            return  # Nothing arrives, and the caller waits for the response.
        self._discarding = True
        self._unread.clear()
        _wake(self._writer)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wait_until(lambda: self._complete)

    @property
    def unread(self) -> int:
        """The number of received bytes that were not read yet."""
        return len(self._unread)

    @property
    def finished(self) -> bool:
        """Whether the whole body has been read."""
        return self._complete and not self._unread and self.failure is None


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
