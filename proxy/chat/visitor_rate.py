"""How often a visitor may send something: counted by session and by address, in this process or in Redis."""

import time

from limits import parse

from proxy.access.counting import Counting
from proxy.errors import RateLimited


class VisitorRate:
    """Holds every visitor to the rate.

    Two counts, since a session is thrown away as easily as it is had, and since one address may be a whole
    office's, where each shall know when it was the one who asked too often.

    Args:
        rate: Such as `2/second`.
        counting: Where requests are counted: in this process by default.
        account: Under which name, so that several rates are counted apart.
        times: How many times the rate is allowed.
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
            RateLimited: it is one too many.
        """
        for key in (f"session:{session}", f"address:{address}"):
            if not await self._counting.hit(self._rate, self._account, key):
                reset, _ = await self._counting.requests_left(self._rate, self._account, key)
                wait = max(reset - time.time(), 0.0)
                raise RateLimited(retry_after=wait, reason="requests of a visitor in a time")
