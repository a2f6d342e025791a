"""The clocks of one exchange: first byte, gap between bytes, whole, and the drain of the service."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from proxy.errors import Draining, ProxyError, UpstreamTimeout
from proxy.settings import Timeouts

T = TypeVar("T")


class ExchangeClock:
    """Bounds every wait of one exchange for its upstream; 0 in the settings means no bound.

    Args:
        timeouts: Seconds, as the upstream's section has them.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._now = asyncio.get_running_loop().time
        started = self._now()
        self._idle = timeouts.idle
        self._first_byte_due = started + timeouts.first_byte if timeouts.first_byte else None
        self._total_due = started + timeouts.total if timeouts.total else None
        self._answering = False
        self._stopped = False
        self._waiting: asyncio.Timeout | None = None

    def first_byte_arrived(self) -> None:
        """From now on the gap between bytes is measured."""
        self._answering = True

    def stop(self) -> None:
        """End the exchange now: the service has drained as long as it may."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.reschedule(self._now())

    async def bound(self, wait: Awaitable[T]) -> T:
        """Await, for as long as the clocks allow.

        Raises:
            UpstreamTimeout: a clock ran out.
            Draining: the service shuts down.
        """
        try:
            async with asyncio.timeout_at(self._due()) as self._waiting:
                return await wait
        except TimeoutError as error:
            raise self._expired() from error
        finally:
            self._waiting = None

    def _due(self) -> float | None:
        now = self._now()
        if self._stopped:
            return now
        step = (now + self._idle if self._idle else None) if self._answering else self._first_byte_due
        if step is None or self._total_due is None:
            return self._total_due if step is None else step
        return min(step, self._total_due)

    def _expired(self) -> ProxyError:
        if self._stopped:
            return Draining()
        if self._total_due is not None and self._now() >= self._total_due:
            return UpstreamTimeout(reason="the whole exchange took too long")
        return UpstreamTimeout(reason="silence in mid-answer" if self._answering else "no first byte in time")
