"""Count the requests and tokens of each caller, and reject what exceeds its limits."""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final, TypedDict

from proxy.access.caller import Caller
from proxy.access.counting import Counting
from proxy.access.streams import StreamCounts
from proxy.errors import RateLimited
from proxy.settings import CallerKey
from proxy.telemetry import CallerReading, ExchangeRecord
from proxy.wire.endpoints import Charge, Endpoint
from proxy.wire.usage import Usage, estimate_usage

if TYPE_CHECKING:
    from limits import RateLimitItem, WindowStats

_REQUESTS: Final = "requests"
_TOKENS: Final = "tokens"
_STREAMS: Final = "streams"
_WRITING: Final = frozenset({"POST", "PUT", "PATCH"})
_BUDGET_SPENT: Final = "token quota of this key used up"


class CallerLimits:
    """Counts what callers use, and rejects what exceeds the limits of their keys.

    It outlives every configuration, so that a reload resets no count.

    Args:
        counting: The counters of requests and tokens: in this process by default.
        streams: The counter of streams: in this process by default.
    """

    def __init__(self, counting: Counting | None = None, streams: StreamCounts | None = None) -> None:
        self._counting = counting or Counting()
        self.streams = streams or StreamCounts()
        self._rejected: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """The number of rejected requests, by caller and limit."""

    async def count_request(self, caller: Caller) -> None:
        """Count a request.

        Raises:
            RateLimited: Too many requests, or the token budget is used up.
        """
        account, rate = caller.name, caller.rate
        if rate is not None and not await self._counting.hit(rate, _REQUESTS, account):
            self._rejected[account][_REQUESTS] += 1
            window = await self._counting.requests_left(rate, _REQUESTS, account)
            raise RateLimited(**_rate_limit(rate, window), reason="request rate")
        if caller.budget is not None:
            await self._check_budget(caller, caller.budget)

    async def count_usage_so_far(self, caller: Caller, record: ExchangeRecord) -> None:
        """Count the tokens that the upstream has reported for an exchange that continues.

        Raises:
            RateLimited: The token budget is used up.
        """
        if caller.budget is not None:
            await self._add_usage(caller, caller.budget, record)
            await self._check_budget(caller, caller.budget)

    async def count_usage(self, caller: Caller, record: ExchangeRecord, endpoint: Endpoint) -> None:
        """Count the tokens of an exchange. The last one may exceed the budget: its cost is not known before.

        If the upstream did not report the usage, or only a part of it, or the caller did not wait for it, an
        estimate is counted and noted in the record.
        """
        budget = caller.budget
        if budget is None:
            return
        if (record.prompt_tokens is None or record.events_unreported) and _ran(record, endpoint):
            if record.prompt_tokens is None:
                record.prompt_tokens, record.completion_tokens = _estimate(record, endpoint)
            else:
                record.add_usage(0, record.events_unreported)
            record.usage_estimated = True
        await self._add_usage(caller, budget, record)

    async def _check_budget(self, caller: Caller, budget: "RateLimitItem") -> None:
        account, counting = caller.name, self._counting
        if await counting.is_spent(budget, _TOKENS, account):
            self._rejected[account][_TOKENS] += 1
            spent = _rate_limit(budget, await counting.amount_left(budget, _TOKENS, account))
            spent["headers"]["X-Should-Retry"] = "false"
            raise RateLimited(_BUDGET_SPENT, **spent, reason="token budget")

    async def _add_usage(self, caller: Caller, budget: "RateLimitItem", record: ExchangeRecord) -> None:
        used = (record.prompt_tokens or 0) + (record.completion_tokens or 0)
        if tokens := used - record.tokens_counted:
            # Before the wait: if it is cancelled, they must not be counted twice.
            record.tokens_counted = used
            await self._counting.add(budget, _TOKENS, caller.name, amount=tokens)

    def forget(self, callers: Collection[str]) -> None:
        """Drop the counts of rejected requests of callers. What they have used still counts in its period."""
        for caller in callers:
            self._rejected.pop(caller, None)
            self.streams.rejected.pop(caller, None)

    def readings(self, keys: Iterable[CallerKey]) -> list[CallerReading]:
        """Return what callers use, for `/metrics`: those that have a key, and those that have streams."""
        known = {key.name: key.max_streams for key in keys}
        running = self.streams.running()
        others = {name: None for name in running if name not in known}
        return [
            CallerReading(
                name,
                running.get(name, 0),
                streams_max,
                {
                    **{limit: self._rejected[name][limit] for limit in (_REQUESTS, _TOKENS)},
                    _STREAMS: self.streams.rejected[name],
                },
            )
            for name, streams_max in {**known, **others}.items()
        ]


def _estimate(record: ExchangeRecord, endpoint: Endpoint) -> Usage:
    if endpoint.websocket:  # most of its bytes are sound
        return Usage(1, record.events or 0)
    sent = 0 if endpoint.form else record.bytes_up  # the size of a file says nothing about tokens
    received = record.bytes_down if record.succeeded else 0
    return estimate_usage(endpoint.charge, sent, received, record.events or 0)


def _ran(record: ExchangeRecord, endpoint: Endpoint) -> bool:
    """Whether an exchange may have run a model: it succeeded, or an upstream got it and did not answer."""
    if endpoint.charge is Charge.NOTHING or not (record.bytes_up or record.method in _WRITING):
        return False
    return record.succeeded or record.unanswered


class _RateLimit(TypedDict):
    retry_after: float
    headers: dict[str, str]


def _rate_limit(limit: "RateLimitItem", window: "WindowStats") -> _RateLimit:
    """Describe a limit in headers (draft-ietf-httpapi-ratelimit-headers, as of its version 03)."""
    seconds = max(window.reset_time - time.time(), 0.0)
    headers = {
        "RateLimit-Limit": str(limit.amount),
        "RateLimit-Remaining": str(window.remaining),
        "RateLimit-Reset": str(math.ceil(seconds)),
    }
    return {"retry_after": seconds, "headers": headers}
