"""What a caller may use: which models, how many requests in a time, how many streams at once."""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter

from proxy.access import Caller
from proxy.errors import ModelForbidden, RateLimited
from proxy.settings import CallerKey
from proxy.telemetry import get_logger

ANY_MODEL: Final = ("*",)

_NAMESPACE: Final = "caller"
_HIDDEN: Final = (
    "this key is limited to models, and the model of this request cannot be seen: send JSON, or a form in "
    "which one field `model` stands before the file"
)


class CallerLimits:
    """Holds every caller to what its key allows.

    Args:
        keys: The `[[access.keys]]`; a caller without a key of its own is not limited.
        storage: Where requests are counted: in this process by default.
    """

    def __init__(self, keys: Sequence[CallerKey], storage: Storage | None = None) -> None:
        self._keys = {key.name: key for key in keys}
        self._rates = {key.name: parse(key.rate) for key in keys if key.rate is not None}
        self._limiter = MovingWindowRateLimiter(storage or MemoryStorage())
        self._streams: Counter[str] = Counter()
        self._log = get_logger("limits")

    async def count_request(self, caller: Caller) -> None:
        """Count a request.

        Raises:
            RateLimited: it is one too many.
        """
        rate = self._rates.get(caller.name)
        if rate is not None and not await self._limiter.hit(rate, _NAMESPACE, caller.name):
            raise await self._too_many(rate, caller)

    def check_model(self, caller: Caller, model: str | None, *, hidden: bool = False) -> None:
        """Refuse a model that is not for this caller.

        Args:
            caller: Whose request it is.
            model: As the request names it, where it does.
            hidden: Whether the request may name one that cannot be seen here.

        Raises:
            ModelForbidden: it is not for this caller, or cannot be seen.
        """
        key = self._keys.get(caller.name)
        if key is None or key.models == ANY_MODEL:
            return
        if model is None:
            if hidden:
                raise ModelForbidden(_HIDDEN)
        elif not any(fnmatchcase(model, allowed) for allowed in key.models):
            raise ModelForbidden

    @contextlib.contextmanager
    def stream(self, caller: Caller) -> Iterator[None]:
        """Count a stream for as long as it runs.

        Raises:
            RateLimited: so many run already.
        """
        key = self._keys.get(caller.name)
        most = None if key is None else key.max_streams
        if most is not None and self._streams[caller.name] >= most:
            raise RateLimited(reason="streams at once")
        self._streams[caller.name] += 1
        try:
            yield
        finally:
            self._streams[caller.name] -= 1

    async def _too_many(self, rate: RateLimitItem, caller: Caller) -> RateLimited:
        reset, remaining = await self._limiter.get_window_stats(rate, _NAMESPACE, caller.name)
        seconds = max(reset - time.time(), 0.0)
        headers = {
            "RateLimit-Limit": str(rate.amount),
            "RateLimit-Remaining": str(remaining),
            "RateLimit-Reset": str(math.ceil(seconds)),
        }
        return RateLimited(retry_after=seconds, headers=headers, reason="requests in a time")
