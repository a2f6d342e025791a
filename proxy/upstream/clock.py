"""The timeouts of one exchange: first byte, gap between bytes, total, and the drain of the service."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Final

from proxy.errors import Draining, ProxyError, SharedTimeout, UpstreamTimeout
from proxy.settings import Timeouts

OTHERS_SHARE_MAX: Final = 0.1
"""If waits for others use up more of the total timeout, its expiry says nothing about the upstream."""


class ExchangeClock:
    """Bounds every wait of one exchange for its upstream; 0 in the settings means no timeout.

    Until the first byte, the wait itself is bounded. After it, one timer watches the gaps: it checks when the
    current wait began, so that an event sets two attributes and no timer.

    Args:
        timeouts: The timeouts of the upstream, in seconds.
        since: When the exchange began, by the time of the event loop; now by default.
    """

    def __init__(self, timeouts: Timeouts, since: float | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        since = now if since is None else since
        self._others = now - since
        """Seconds of the exchange in which it did not wait for this upstream."""
        self._suspended_at: float | None = None
        self._idle = timeouts.idle or None
        self._first_byte = timeouts.first_byte or None
        self._total = timeouts.total
        self._total_due = since + timeouts.total if timeouts.total else None
        self._stopped = False
        self._before: asyncio.Timeout | None = None
        self._fail: Callable[[ProxyError], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None

    def first_byte(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Bound the block, which waits for the first byte of the response.

        The block raises:
            UpstreamTimeout: The first-byte timeout or the total timeout expired.
            SharedTimeout: The total timeout expired, and waits for others used up a part of it.
            Draining: The service is shutting down.
        """
        return _FirstByte(self)

    def suspend(self) -> None:
        """Suspend the first-byte timeout during a wait that has its own; the total timeout keeps running."""
        if self._suspended_at is None:
            self._suspended_at = self._loop.time()
        if self._before is not None and not self._before.expired() and not self._stopped:
            self._before.reschedule(self._total_due)

    def restart(self) -> None:
        """Restart the first-byte timeout, because a part of the request has just been sent."""
        if self._suspended_at is not None:
            self._others += self._loop.time() - self._suspended_at
            self._suspended_at = None
        if self._before is not None and not self._before.expired():
            self._before.reschedule(self._first_byte_due())

    def watch(self, fail: Callable[[ProxyError], None]) -> None:
        """Watch the gaps until `close` is called.

        Args:
            fail: Makes the current read, or the next one, raise an error: `UpstreamTimeout` or `Draining`.
        """
        self._fail = fail
        if self._stopped:
            fail(Draining())
        self._arm(self._loop.time())

    def expect_end(self, seconds: float) -> None:
        """Shorten the gap timeout: the response is complete except for the end of its body."""
        self._idle = seconds if self._idle is None else min(self._idle, seconds)
        self.close()
        self._arm(self._loop.time())

    def start_waiting(self) -> None:
        """Begin or continue a wait for the upstream."""
        if self._waiting_since is None:
            self._waiting_since = self._loop.time()

    def stop_waiting(self) -> None:
        """End the wait for the upstream: time spent on the caller does not count."""
        self._waiting_since = None

    def stop(self) -> None:
        """End the exchange now, because the time for the drain is over."""
        self._stopped = True
        if self._fail is not None:
            self._fail(Draining())
        elif self._before is not None and not self._before.expired():
            self._before.reschedule(self._loop.time())

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _first_byte_due(self) -> float | None:
        now = self._loop.time()
        if self._stopped:
            return now
        if self._first_byte is None:
            return self._total_due
        due = now + self._first_byte
        return due if self._total_due is None else min(due, self._total_due)

    def _first_byte_error(self, due: float | None) -> ProxyError:
        """Return the error of a wait for the first byte that ended at `due`."""
        if self._stopped:
            return Draining()
        others = self._others
        if self._suspended_at is not None:
            others += self._loop.time() - self._suspended_at
        is_shared = due == self._total_due and others > OTHERS_SHARE_MAX * self._total
        return (SharedTimeout if is_shared else UpstreamTimeout)(reason="no first byte in time")

    def _arm(self, now: float) -> None:
        begun = now if self._waiting_since is None else self._waiting_since
        due = self._total_due
        if self._idle is not None and (due is None or begun + self._idle < due):
            due = begun + self._idle
        self._timer = None if due is None else self._loop.call_at(due, self._check_timeouts)

    def _check_timeouts(self) -> None:
        now = self._loop.time()
        since = self._waiting_since
        if self._total_due is not None and now >= self._total_due:
            self._expire("the whole exchange took too long")
        elif since is not None and self._idle is not None and now >= since + self._idle:
            self._expire("silence in the middle of the response")
        else:
            self._arm(now)

    def _expire(self, reason: str) -> None:
        if self._fail is not None:
            self._fail(UpstreamTimeout(reason=reason))


class _FirstByte(contextlib.AbstractAsyncContextManager[None]):
    """A wait for the first byte; a generator would cost several times as much."""

    def __init__(self, clock: ExchangeClock) -> None:
        self._clock = clock
        self._timeout = asyncio.timeout_at(clock._first_byte_due())

    async def __aenter__(self) -> None:
        self._clock._before = await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clock._before = None
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as expired:
            raise self._clock._first_byte_error(self._timeout.when()) from expired
