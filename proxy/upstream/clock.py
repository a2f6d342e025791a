"""The clocks of one exchange: first byte, gap between bytes, whole, and the drain of the service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from proxy.errors import Draining, ProxyError, UpstreamTimeout
from proxy.settings import Timeouts


class ExchangeClock:
    """Bounds every wait of one exchange for its upstream; 0 in the settings means no bound.

    Until the first byte the wait itself is bounded. After it one timer watches the gaps: it looks when the
    current wait began, so that an event costs two attributes and no timer of its own.

    Args:
        timeouts: Seconds, as the upstream's section has them.
        since: When the exchange began, on the loop's clock; now by default.
    """

    def __init__(self, timeouts: Timeouts, since: float | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        now = self._loop.time() if since is None else since
        self._idle = timeouts.idle or None
        self._first_byte = timeouts.first_byte or None
        self._total_due = now + timeouts.total if timeouts.total else None
        self._stopped = False
        self._before: asyncio.Timeout | None = None
        self._fail: Callable[[ProxyError], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None

    @contextlib.asynccontextmanager
    async def first_byte(self) -> AsyncIterator[None]:
        """Bound everything inside: the wait for the beginning of the answer.

        Raises:
            UpstreamTimeout: it did not come in time.
            Draining: the service shuts down.
        """
        try:
            async with asyncio.timeout_at(self._first_byte_due()) as self._before:
                yield
        except TimeoutError as error:
            raise Draining if self._stopped else UpstreamTimeout(reason="no first byte in time") from error
        finally:
            self._before = None

    def hold(self) -> None:
        """Something else is waited for, with a bound of its own: only the whole exchange goes on to count."""
        if self._before is not None and not self._before.expired() and not self._stopped:
            self._before.reschedule(self._total_due)

    def sent(self) -> None:
        """The request goes out, or a part of it: the upstream could not have answered before."""
        if self._before is not None and not self._before.expired():
            self._before.reschedule(self._first_byte_due())

    def watch(self, fail: Callable[[ProxyError], None]) -> None:
        """Watch the gaps from now on; `fail` makes the read that waits raise an error. `close` ends it."""
        self._fail = fail
        if self._stopped:
            fail(Draining())
        self._arm(self._loop.time())

    def ending(self, seconds: float) -> None:
        """All has been said: from now on a wait may take no longer than this."""
        self._idle = seconds if self._idle is None else min(self._idle, seconds)
        self.close()
        self._arm(self._loop.time())

    def waiting(self) -> None:
        """A wait for the upstream begins, or goes on."""
        if self._waiting_since is None:
            self._waiting_since = self._loop.time()

    def arrived(self) -> None:
        """It is over: what follows is the caller's time."""
        self._waiting_since = None

    def stop(self) -> None:
        """End the exchange now: the service has drained as long as it may."""
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
        step = None if self._first_byte is None else now + self._first_byte
        return min((due for due in (step, self._total_due) if due is not None), default=None)

    def _arm(self, now: float) -> None:
        begun = now if self._waiting_since is None else self._waiting_since
        dues = [self._total_due, None if self._idle is None else begun + self._idle]
        due = min((due for due in dues if due is not None), default=None)
        self._timer = None if due is None else self._loop.call_at(due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        since = self._waiting_since
        if self._total_due is not None and now >= self._total_due:
            self._expire("the whole exchange took too long")
        elif since is not None and self._idle is not None and now >= since + self._idle:
            self._expire("silence in mid-answer")
        else:
            self._arm(now)

    def _expire(self, reason: str) -> None:
        if self._fail is not None:
            self._fail(UpstreamTimeout(reason=reason))
