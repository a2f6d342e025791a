"""One request, and every upstream that may take it: try again where that is safe, then ask the next one.

All of this happens before the first byte of an answer reaches the caller; afterwards nothing can be taken
back. A request goes to the same upstream again only if nothing of it was sent, or if the upstream asks for
it and there is no other one; and only while the budget of that upstream lasts.
"""

import asyncio
import contextlib
import itertools
import math
import random
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from proxy.errors import CredentialError, Draining, InternalError, ProxyError, Unreachable, UpstreamError
from proxy.telemetry import ExchangeRecord, get_logger
from proxy.upstream.relay import Answer, Exchange
from proxy.upstream.routing import Route
from proxy.wire.retry_after import read_retry_after

PAUSE_SECONDS: Final = 0.1
"""Before the first retry after no connection; doubled each time, and drawn from half of it to all of it."""

Prepare = Callable[[Route, contextlib.AsyncExitStack], Exchange]
"""Makes the exchange with one upstream; the stack closes what it needs."""


class Attempts:
    """Try one upstream after the other.

    Args:
        plan: Where to, in order; not empty.
        prepare: Makes the exchange with one of them.
        record: Of the request; it names the upstream that was tried last.
        again: Whether the request can be sent more than once: its body is held.
    """

    def __init__(
        self, plan: Sequence[Route], prepare: Prepare, record: ExchangeRecord, *, again: bool
    ) -> None:
        self._plan = plan if again else plan[:1]
        self._prepare = prepare
        self._record = record
        self._again = again

    async def open(self, closing: contextlib.AsyncExitStack) -> Answer:
        """The first answer that is no failure; of the last upstream whatever it answers.

        Args:
            closing: Gets what must be closed when the exchange ends: see `Exchange.open`.

        Raises:
            ProxyError: how the last attempt ended, if without an answer.
        """
        for route in self._plan[:-1]:
            answer = await self._ask(route, closing, is_last=False)
            if answer is not None:
                return answer
        answer = await self._ask(self._plan[-1], closing, is_last=True)
        if answer is None:
            raise InternalError(reason="the last upstream neither answered nor failed")
        return answer

    async def _ask(self, route: Route, closing: contextlib.AsyncExitStack, *, is_last: bool) -> Answer | None:
        """The answer of one upstream; None where the next one is to be asked."""
        route.health.budget.deposit()
        wait = 0.0
        for retries in itertools.count():
            if is_last and not self._may_retry(route, retries):
                # Nothing comes after it, and so nothing of it has to be put away before the end.
                return _answer_of(await self._attempt(route, wait, closing))
            async with contextlib.AsyncExitStack() as own:
                outcome = await self._attempt(route, wait, own)
                again = self._wait_before_retry(route, outcome, retries, is_last=is_last)
                if again is None and (is_last or not _is_failure(route, outcome)):
                    answer = _answer_of(outcome)
                    closing.push_async_exit(own.pop_all())
                    return answer
            _tell(route, outcome, again)
            if again is None:
                break
            wait = again
        return None

    async def _attempt(
        self, route: Route, wait: float, closing: contextlib.AsyncExitStack
    ) -> Answer | ProxyError:
        """How an attempt ends before its first byte reaches the caller."""
        exchange = self._prepare(route, closing)
        try:
            if wait:
                await exchange.clock.first_byte(asyncio.sleep(wait))
            with route.health.attempt() as end:
                self._record.begin_attempt(route.upstream)
                try:
                    answer = await exchange.open(closing)
                except ProxyError as error:
                    end.error = error
                    raise
                end.status = answer.status
                return answer
        except ProxyError as error:
            return error

    def _may_retry(self, route: Route, retries: int) -> bool:
        return self._again and retries < route.health.retries.attempts

    def _wait_before_retry(
        self, route: Route, outcome: Answer | ProxyError, retries: int, *, is_last: bool
    ) -> float | None:
        """Seconds until the same upstream is asked again; None where it is not."""
        if not self._may_retry(route, retries):
            return None
        most = min(route.health.retries.longest_wait, route.timeouts.first_byte or math.inf)
        wait: float | None = None
        if isinstance(outcome, Unreachable):  # nothing was sent
            pause = PAUSE_SECONDS * 2**retries * random.uniform(0.5, 1)  # noqa: S311  spreads callers out
            wait = min(pause, most / 2)
        elif is_last and isinstance(outcome, Answer) and outcome.status >= HTTPStatus.BAD_REQUEST:
            wait = read_retry_after(outcome.headers, time.time())
            wait = None if wait is None else max(wait, PAUSE_SECONDS)
        if wait is None or wait >= most or not route.health.budget.withdraw():
            return None
        return wait


def _answer_of(outcome: Answer | ProxyError) -> Answer:
    if isinstance(outcome, ProxyError):
        raise outcome
    return outcome


def _is_failure(route: Route, outcome: Answer | ProxyError) -> bool:
    """Whether another upstream might do better."""
    if isinstance(outcome, Answer):
        return outcome.status in route.fallback_statuses
    return isinstance(outcome, UpstreamError | CredentialError) and not isinstance(outcome, Draining)


def _tell(route: Route, outcome: Answer | ProxyError, wait: float | None) -> None:
    failed = (
        {"status": outcome.status}
        if isinstance(outcome, Answer)
        else {"code": outcome.code, "reason": outcome.reason}
    )
    again = {} if wait is None else {"again_in_s": round(wait, 3)}
    get_logger("upstreams").warning("attempt_failed", upstream=route.upstream, **failed, **again)
