"""Limits for visitors of the chat: requests and bytes per time, and streams or answers open at once."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator

from limits import RateLimitItemPerSecond, parse

from proxy.access.counting import Counting
from proxy.errors import RateLimited


class VisitorRate:
    """Limits the requests of each visitor, counted in this process or in Redis.

    Requests are counted by session and by address, because a visitor can easily get a new session. The
    session is checked first: a visitor over the limit does not use up that of an office that shares one
    address.

    Args:
        rate: The rate, such as `2/second`.
        counting: Where requests are counted: in this process by default.
        account: The name under which requests are counted, so that several rates are independent.
        times: A factor for the rate.
    """

    def __init__(
        self, rate: str, counting: Counting | None = None, *, account: str = "chat", times: int = 1
    ) -> None:
        item = parse(rate)
        self._rate = type(item)(item.amount * times, item.multiples)
        self._account = account
        self._counting = counting or Counting()

    async def count(self, session: str, address: str) -> None:
        """Count a request.

        Raises:
            RateLimited: The rate is exceeded.
        """
        for key in (f"session:{session}", f"address:{address}"):
            if not await self._counting.hit(self._rate, self._account, key):
                reset, _ = await self._counting.requests_left(self._rate, self._account, key)
                wait = max(reset - time.time(), 0.0)
                raise RateLimited(retry_after=wait, reason="requests of a visitor in a time")


class VisitorBudget:
    """Limits the bytes that the requests of each address store, counted in this process or in Redis.

    Args:
        size: Bytes of an address.
        seconds: For how long they count.
        counting: Where they are counted: in this process by default.
        account: The name under which they are counted.
    """

    def __init__(
        self, size: int, seconds: float, counting: Counting | None = None, *, account: str = "chat"
    ) -> None:
        self._limit = RateLimitItemPerSecond(size, max(round(seconds), 1))
        self._account = account
        self._counting = counting or Counting()

    async def check(self, address: str) -> None:
        """Check that an address may store something.

        Raises:
            RateLimited: It has stored as much as it may.
        """
        if await self._counting.is_spent(self._limit, self._account, address):
            reset, _ = await self._counting.amount_left(self._limit, self._account, address)
            raise RateLimited(retry_after=max(reset - time.time(), 0.0), reason="bytes that a visitor stored")

    async def add(self, address: str, size: int) -> None:
        """Count bytes that have been stored."""
        if size:
            await self._counting.add(self._limit, self._account, address, amount=size)


class ConcurrencyLimit:
    """Limits how many blocks run at once for each address, counted in this process.

    Args:
        limit: Blocks for one address.
        reason: Explanation for the log.
    """

    def __init__(self, limit: int, reason: str) -> None:
        self._limit = limit
        self._reason = reason
        self._running: Counter[str] = Counter()

    @contextlib.contextmanager
    def slot(self, address: str) -> Iterator[None]:
        """Occupy a slot during the block.

        Raises:
            RateLimited: The address has no free slot.
        """
        if self._running[address] >= self._limit:
            raise RateLimited(reason=self._reason)
        self._running[address] += 1
        try:
            yield
        finally:
            self._running[address] -= 1
            if not self._running[address]:
                del self._running[address]
