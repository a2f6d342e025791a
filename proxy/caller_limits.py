"""What a caller may use: which models, how many requests and tokens in a time, how many streams at once."""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final, TypedDict

from limits import RateLimitItem, WindowStats, parse

from proxy.access import Caller
from proxy.counting import Counting
from proxy.errors import ModelForbidden, RateLimited
from proxy.settings import CallerKey

ANY_MODEL: Final = ("*",)

_REQUESTS: Final = "requests"
_TOKENS: Final = "tokens"
_BUDGET_SPENT: Final = "token quota of this key used up"
_HIDDEN: Final = (
    "this key is limited to models, and the model of this request cannot be seen: send JSON, or a form in "
    "which one field `model` stands before the file"
)


class Accounts:
    """What callers have used, whatever their keys allow at the moment.

    Args:
        counting: Counts requests and tokens: in this process by default.
    """

    def __init__(self, counting: Counting | None = None) -> None:
        self.counting = counting or Counting()
        self.streams: Counter[str] = Counter()
        """How many run now, by caller."""


class CallerLimits:
    """Holds every caller to what its key allows.

    Args:
        keys: The `[[access.keys]]`; a caller without a key of its own is not limited.
        accounts: What callers have used so far.
    """

    def __init__(self, keys: Sequence[CallerKey], accounts: Accounts | None = None) -> None:
        self._keys = {key.name: key for key in keys}
        self._rates = {key.name: parse(key.rate) for key in keys if key.rate is not None}
        self._budgets = {key.name: parse(key.tokens) for key in keys if key.tokens is not None}
        accounts = accounts or Accounts()
        self._counting, self._streams = accounts.counting, accounts.streams

    async def count_request(self, caller: Caller) -> None:
        """Count a request.

        Raises:
            RateLimited: it is one too many, or the tokens are used up.
        """
        account, counting = caller.name, self._counting
        rate = self._rates.get(account)
        if rate is not None and not await counting.hit(rate, _REQUESTS, account):
            window = await counting.requests_left(rate, _REQUESTS, account)
            raise RateLimited(**_told(rate, window), reason="requests in a time")
        budget = self._budgets.get(account)
        if budget is not None and await counting.is_spent(budget, _TOKENS, account):
            told = _told(budget, await counting.amount_left(budget, _TOKENS, account))
            told["headers"]["X-Should-Retry"] = "false"
            raise RateLimited(_BUDGET_SPENT, **told, reason="tokens in a time")

    async def count_tokens(self, caller: Caller, tokens: int) -> None:
        """Count what a request used. The last one may go beyond the budget: nobody knows before."""
        budget = self._budgets.get(caller.name)
        if budget is not None and tokens:
            await self._counting.add(budget, _TOKENS, caller.name, amount=tokens)

    def has_models(self, caller: Caller) -> bool:
        """Whether this caller may use certain models only."""
        key = self._keys.get(caller.name)
        return key is not None and key.models != ANY_MODEL

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


class _Told(TypedDict):
    retry_after: float
    headers: dict[str, str]


def _told(limit: RateLimitItem, window: WindowStats) -> _Told:
    """When more is allowed, and how much (draft-ietf-httpapi-ratelimit-headers, as of its version 03)."""
    seconds = max(window.reset_time - time.time(), 0.0)
    headers = {
        "RateLimit-Limit": str(limit.amount),
        "RateLimit-Remaining": str(window.remaining),
        "RateLimit-Reset": str(math.ceil(seconds)),
    }
    return {"retry_after": seconds, "headers": headers}
