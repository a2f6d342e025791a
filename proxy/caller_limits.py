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
from proxy.errors import EndpointForbidden, ModelForbidden, RateLimited
from proxy.settings import ANY_MODEL, CallerKey
from proxy.telemetry import ExchangeRecord
from proxy.wire.endpoints import Charge, Endpoint, ModelPlace
from proxy.wire.request_model import SeenRequest, find_ambiguity, named_models
from proxy.wire.usage import Usage, estimate_usage

ANY_ENDPOINT: Final = "*"

_REQUESTS: Final = "requests"
_TOKENS: Final = "tokens"
_WRITING: Final = frozenset({"POST", "PUT", "PATCH"})
_BUDGET_SPENT: Final = "token quota of this key used up"
_SHOWS_NO_MODEL: Final = (
    "this key is limited to models, and requests to this endpoint can run a model that they do not name"
)
_NOT_BY_DEFAULT: Final = (
    "this key is limited to models, and such keys may use this endpoint only if their `endpoints` name it"
)
_HIDDEN: Final = "this key is limited to models, and it is not certain which model this request runs"


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

    async def count_usage(self, caller: Caller, record: ExchangeRecord, endpoint: Endpoint) -> None:
        """Count what an exchange used. The last one may exceed the budget: nobody knows its cost before.

        If the upstream did not report the usage, or the caller did not wait for it, an estimate is counted
        and noted in the record.

        Args:
            caller: Whose exchange it was.
            record: Of the exchange, which has ended.
            endpoint: Of the request.
        """
        budget = self._budgets.get(caller.name)
        if budget is None:
            return
        if record.prompt_tokens is None and _ran(record, endpoint):
            record.prompt_tokens, record.completion_tokens = _estimate(record, endpoint)
            record.usage_estimated = True
        tokens = (record.prompt_tokens or 0) + (record.completion_tokens or 0)
        if tokens:
            await self._counting.add(budget, _TOKENS, caller.name, amount=tokens)

    def check_endpoint(self, caller: Caller, endpoint: Endpoint) -> None:
        """Refuse an endpoint that is not for this caller.

        Raises:
            EndpointForbidden: it is not listed, or a key that is limited to models may not use it by default.
        """
        key = self._keys.get(caller.name)
        if key is None:
            return
        if key.endpoints is not None:
            if ANY_ENDPOINT not in key.endpoints and not endpoint.is_in(key.endpoints):
                raise EndpointForbidden
        elif key.models != ANY_MODEL and not endpoint.limited:
            hidden = endpoint.model is ModelPlace.HIDDEN
            raise EndpointForbidden(_SHOWS_NO_MODEL if hidden else _NOT_BY_DEFAULT)

    def is_limited(self, caller: Caller) -> bool:
        """Whether this caller may use certain models only."""
        key = self._keys.get(caller.name)
        return key is not None and key.models != ANY_MODEL

    def check_models(self, caller: Caller, request: SeenRequest) -> None:
        """Refuse a request for a model that is not for this caller, or whose model is not certain.

        Raises:
            ModelForbidden
        """
        if self.is_limited(caller):
            doubt = find_ambiguity(request)
            if doubt is not None:
                raise ModelForbidden(f"{_HIDDEN}: {doubt}")
            for model in request.models:
                self.check_model(caller, model)

    def check_message(self, caller: Caller, message: str | bytes) -> None:
        """Refuse a message of a WebSocket that names a model that is not for this caller.

        Raises:
            ModelForbidden: it does, or it may.
        """
        if self.is_limited(caller):
            models = named_models(message.encode() if isinstance(message, str) else message)
            if models is None:
                raise ModelForbidden(f"{_HIDDEN}: a message may name another one")
            for model in models:
                self.check_model(caller, model)

    def check_model(self, caller: Caller, model: str) -> None:
        """Refuse a model that is not for this caller.

        Raises:
            ModelForbidden
        """
        if not self.may_use(caller, model):
            raise ModelForbidden

    def may_use(self, caller: Caller, model: str) -> bool:
        """Return whether the key of this caller allows a model."""
        key = self._keys.get(caller.name)
        return key is None or any(fnmatchcase(model, allowed) for allowed in key.models)

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


def _estimate(record: ExchangeRecord, endpoint: Endpoint) -> Usage:
    if endpoint.websocket:  # most of its bytes are sound
        return Usage(1, record.events or 0)
    sent = 0 if endpoint.form else record.bytes_up  # the size of a file says nothing about tokens
    received = record.bytes_down if record.answered else 0
    return estimate_usage(endpoint.charge, sent, received, record.events or 0)


def _ran(record: ExchangeRecord, endpoint: Endpoint) -> bool:
    """Whether an exchange may have run a model: it was answered, or its caller left before it could be."""
    if endpoint.charge is Charge.NOTHING or not (record.bytes_up or record.method in _WRITING):
        return False
    return record.answered or (record.attempts > 0 and record.headers_at is None and not record.outcome)


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
