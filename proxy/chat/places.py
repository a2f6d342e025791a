"""How much one address may have open at once: streams, and answers that are being written."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from proxy.errors import RateLimited


class Places:
    """Places that are taken and given back, counted in this process.

    Args:
        most: For one address.
        reason: Words for the log.
    """

    def __init__(self, most: int, reason: str) -> None:
        self._most = most
        self._reason = reason
        self._taken: Counter[str] = Counter()

    @contextlib.contextmanager
    def one(self, address: str) -> Iterator[None]:
        """Take one for as long as the block runs.

        Raises:
            RateLimited: all of them are taken.
        """
        if self._taken[address] >= self._most:
            raise RateLimited(reason=self._reason)
        self._taken[address] += 1
        try:
            yield
        finally:
            self._taken[address] -= 1
            if not self._taken[address]:
                del self._taken[address]
