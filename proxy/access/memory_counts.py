"""Count in the memory of this process, for the strategies of the library `limits`.

The library's own storage removes old entries in a thread of the event loop's pool, one account after the
other, and locks each meanwhile. Requests waited for other work of that pool, such as rendering for the chat.
"""

import time
from collections import deque
from typing import Final

from limits.aio.storage import MovingWindowSupport, Storage

from proxy.elapsed import elapsed

ACCOUNTS_MIN: Final = 1024
"""Below this number of accounts, none is removed."""


class _Account:
    """The count for one key.

    Args:
        limit: The most entries of a moving window; 0 for an account of amounts.
    """

    __slots__ = ("amount", "expiry", "moments")

    def __init__(self, limit: int) -> None:
        self.moments: deque[float] = deque(maxlen=limit)
        """When the entries of a moving window were made, the oldest first, by the clock of `elapsed`."""
        self.amount = 0
        self.expiry = 0.0
        """When everything in the account has expired."""


class MemoryCounts(Storage, MovingWindowSupport):
    """A storage whose methods never wait. Accounts that have expired are removed as others are added.

    It counts by a clock that nobody sets, and returns times by that of the day, which the strategies expect.
    """

    STORAGE_SCHEME = None
    base_exceptions = ()

    def __init__(self) -> None:
        super().__init__()
        self._accounts: dict[str, _Account] = {}
        self._accounts_max = ACCOUNTS_MIN

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add entries to a moving window, unless it would then have more than the limit."""
        now, account = elapsed(), self._open(key, limit)
        index = len(account.moments) + amount - limit - 1
        if amount > limit or (index >= 0 and account.moments[index] >= now - expiry):
            return False
        account.moments.extend([now] * amount)
        account.expiry = now + expiry
        return True

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when the oldest entry of a moving window was made, and how many it has."""
        now, moments = elapsed(), self._open(key, limit).moments
        while moments and moments[0] < now - expiry:
            moments.popleft()
        return time.time() - (now - moments[0] if moments else 0.0), len(moments)

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add an amount in the current period, which begins with its first amount; return the sum."""
        now, account = elapsed(), self._open(key)
        if account.expiry <= now:
            account.amount, account.expiry = 0, now + expiry
        account.amount += amount
        return account.amount

    async def get(self, key: str) -> int:
        """Return the sum of the amounts in the current period."""
        account = self._accounts.get(key)
        return 0 if account is None or account.expiry <= elapsed() else account.amount

    async def get_expiry(self, key: str) -> float:
        """Return when the current period ends; the current time if there is none."""
        account = self._accounts.get(key)
        return time.time() + (0.0 if account is None else max(account.expiry - elapsed(), 0.0))

    async def check(self) -> bool:
        """Return that the storage works."""
        return True

    async def clear(self, key: str) -> None:
        """Forget one account."""
        self._accounts.pop(key, None)

    async def reset(self) -> int:
        """Forget all accounts; return how many there were."""
        count = len(self._accounts)
        self._accounts.clear()
        return count

    def _open(self, key: str, limit: int = 0) -> _Account:
        account = self._accounts.get(key)
        if account is None:
            if len(self._accounts) >= self._accounts_max:
                self._remove_expired()
            account = self._accounts[key] = _Account(limit)
        return account

    def _remove_expired(self) -> None:
        """Remove the accounts that have expired. The next time comes when their number has doubled."""
        now = elapsed()
        self._accounts = {key: account for key, account in self._accounts.items() if account.expiry > now}
        self._accounts_max = max(ACCOUNTS_MIN, 2 * len(self._accounts))
