"""One request, and every upstream that may take it: try again where that is safe, then try the next one.

All of this happens before the first byte of a response reaches the caller; afterwards nothing can be taken
back. A request goes to the same upstream again only if nothing of it was sent, or if the upstream asks for
it and there is no other one; and only while the budget of that upstream lasts.
"""

import asyncio
import contextlib
import itertools
import math
import random
import time
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Final

from proxy.drain import Drain
from proxy.errors import CredentialError, Draining, InternalError, ProxyError, Unreachable, UpstreamError
from proxy.settings import Limits
from proxy.telemetry import ExchangeRecord, get_logger
from proxy.telemetry.spans import AttemptSpan
from proxy.token_ids import TokenTexts
from proxy.upstream.clock import ExchangeClock
from proxy.upstream.relay import NO_RESPONSE_REPAIRS, Attempt, RelayedResponse
from proxy.upstream.repair_threads import RepairThreads
from proxy.upstream.repaired import INLINE_BYTES_MAX, ResponseRepairs
from proxy.upstream.requests import CallerRequest, UpstreamRequest
from proxy.upstream.routing import Route
from proxy.wire.form_body import replace_form_model
from proxy.wire.headers import request_headers
from proxy.wire.repairs import Call, read_call, repair_request
from proxy.wire.request_json import NO_FIELDS, replace_model
from proxy.wire.retry_after import read_retry_after

PAUSE_SECONDS: Final = 0.1
"""The longest pause before the first retry after a failed connection. It doubles with each further retry."""


class Attempts:
    """Try one upstream after the other.

    Args:
        limits: The `[limits]` section.
        drain: Counts the running exchanges, and ends them when the service stops.
        token_texts: Decodes token ids, for the repair that needs it.
        repair_threads: Where long responses are repaired.
    """

    def __init__(
        self, limits: Limits, drain: Drain, token_texts: TokenTexts, repair_threads: RepairThreads
    ) -> None:
        self._limits = limits
        self._drain = drain
        self._token_texts = token_texts
        self._repair_threads = repair_threads

    async def open(
        self,
        request: CallerRequest,
        plan: Sequence[Route],
        record: ExchangeRecord,
        closing: contextlib.AsyncExitStack,
        *,
        heartbeat: float | None = None,
    ) -> RelayedResponse:
        """Return the first response that is not a failure, or else that of the last upstream.

        Args:
            request: The request; it is sent only once if the rest of its body is still to be read.
            plan: The upstreams in order, at least one.
            record: The record of the exchange; it names the upstream that was tried last.
            closing: Receives what must be closed when the exchange ends: see `Attempt.open`.
            heartbeat: Seconds of silence before a heartbeat, instead of those of the routes.

        Raises:
            ProxyError: The failure of the last attempt.
        """
        begun = asyncio.get_running_loop().time()
        can_repeat = request.rest is None
        for route in plan if can_repeat else plan[:1]:
            is_last = route is plan[-1] or not can_repeat
            route.health.budget.deposit()
            wait = 0.0
            for retries in itertools.count():
                may_retry = can_repeat and retries < route.health.retries.attempts
                if is_last and not may_retry:
                    # Nothing comes after this attempt, so its resources stay open until the exchange ends.
                    return await self._attempt(request, route, record, closing, begun, wait, heartbeat)
                outcome: RelayedResponse | ProxyError
                async with contextlib.AsyncExitStack() as opened:
                    try:
                        outcome = await self._attempt(request, route, record, opened, begun, wait, heartbeat)
                    except ProxyError as error:
                        outcome = error
                    again = (
                        _wait_before_retry(route, outcome, retries, is_last=is_last) if may_retry else None
                    )
                    if again is None and (is_last or not _is_failure(route, outcome)):
                        if isinstance(outcome, ProxyError):
                            raise outcome
                        closing.push_async_exit(opened.pop_all())
                        return outcome
                _log_failure(route, outcome, again)
                if again is None:
                    break
                wait = again
        raise InternalError(reason="the last upstream neither responded nor failed")

    async def _attempt(
        self,
        request: CallerRequest,
        route: Route,
        record: ExchangeRecord,
        closing: contextlib.AsyncExitStack,
        begun: float,
        wait: float,
        heartbeat: float | None,
    ) -> RelayedResponse:
        """Send the request to one upstream, and wait for the first byte of its response."""
        clock = ExchangeClock(route.timeouts, begun)
        self._drain.begin(clock)
        closing.callback(self._drain.end, clock)
        span = None
        if record.span is not None:
            names = (route.upstream, route.endpoint.name, request.model)
            span = closing.enter_context(record.span.attempt(*names, record.fields))
        body, call = await self._prepare(request, route, clock)
        repairs = NO_RESPONSE_REPAIRS
        if call is not None:
            repairs = ResponseRepairs(route.repairs, call, self._repair_threads, request.caller.name)
        attempt = Attempt(
            self._write_request(request, body, route, clock, record, span),
            route,
            clock,
            record,
            self._limits,
            repairs,
            heartbeat=route.heartbeat if heartbeat is None else heartbeat,
        )
        if wait:
            async with clock.first_byte():
                await asyncio.sleep(wait)
        try:
            with route.health.attempt() as end:
                record.begin_attempt(route.upstream)
                response = await attempt.open(closing)
                end.status, end.concerns_request = response.status, response.concerns_request
        except ProxyError as error:
            if span is not None:
                span.error = error.code
            raise
        if span is not None:
            span.status = response.status
        return response

    def _write_request(
        self,
        request: CallerRequest,
        body: bytes,
        route: Route,
        clock: ExchangeClock,
        record: ExchangeRecord,
        span: AttemptSpan | None,
    ) -> UpstreamRequest:
        """Return the request as this upstream gets it, with a body from `_prepare`."""
        headers = request_headers(request.headers, request_id=request.request_id)
        length = request.content_length
        if length is not None:
            length += len(body) - len(request.body)
        return UpstreamRequest(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=headers if span is None else span.propagate(headers),
            body=body if request.rest is None else upload(body, request.rest, clock, record),
            content_length=length,
            clock=clock,
            caller=request.caller.name,
            endpoint=route.endpoint,
            model=request.model,
        )

    async def _prepare(
        self, request: CallerRequest, route: Route, clock: ExchangeClock
    ) -> tuple[bytes, Call | None]:
        """Return the body for this upstream, and what repairs of the response need to know of the request.

        Repairs read a long body in a thread, so that the event loop can run meanwhile. The wait for a thread
        ends at the total timeout, and when the service stops.
        """
        if not route.repairs:
            return self._write_body(request, route), None

        def prepare() -> tuple[bytes, Call]:
            return self._write_body(request, route), read_call(route.endpoint.shape, request.body)

        if len(request.body) <= INLINE_BYTES_MAX:
            return prepare()
        async with clock.first_byte():
            clock.suspend()
            try:
                return await self._repair_threads.run(request.caller.name, prepare)
            finally:
                clock.restart()

    def _write_body(self, request: CallerRequest, route: Route) -> bytes:
        """Return the body with the upstream's name of the model, repaired for this upstream and caller."""
        body = request.body
        if route.rename is not None and request.form.model is not None:
            return replace_form_model(request.form, body, route.rename)
        if request.fields is NO_FIELDS or not request.is_whole:  # not JSON
            return body
        if route.rename is not None:
            body = replace_model(body, route.rename)
        if not route.repairs:
            return body
        read_ids = self._token_texts.reader(request.model)
        return repair_request(route.repairs, route.endpoint.shape, body, read_ids)


async def upload(
    head: bytes, rest: AsyncIterator[bytes], clock: ExchangeClock, record: ExchangeRecord
) -> AsyncIterator[bytes]:
    """Yield the bytes already read, then the rest of the body.

    The first-byte timeout is suspended while the caller is slow, because that wait has its own, and restarted
    with each chunk.
    """
    yield head
    clock.suspend()
    async for chunk in rest:
        record.bytes_up += len(chunk)
        clock.restart()
        yield chunk
        clock.suspend()
    clock.restart()


def _wait_before_retry(
    route: Route, outcome: RelayedResponse | ProxyError, retries: int, *, is_last: bool
) -> float | None:
    """Return the seconds until the same upstream is tried again; None if it is not."""
    most = min(route.health.retries.longest_wait, route.timeouts.first_byte or math.inf)
    wait: float | None = None
    if isinstance(outcome, Unreachable):  # nothing was sent
        pause = PAUSE_SECONDS * 2**retries * random.uniform(0.5, 1)  # noqa: S311  spreads callers out
        wait = min(pause, most / 2)
    elif is_last and isinstance(outcome, RelayedResponse) and outcome.status >= HTTPStatus.BAD_REQUEST:
        wait = read_retry_after(outcome.headers, time.time())
        wait = None if wait is None else max(wait, PAUSE_SECONDS)
    if wait is None or wait >= most or not route.health.budget.withdraw():
        return None
    return wait


def _is_failure(route: Route, outcome: RelayedResponse | ProxyError) -> bool:
    """Whether another upstream might do better."""
    if isinstance(outcome, RelayedResponse):
        return outcome.status in route.fallback_statuses
    return isinstance(outcome, UpstreamError | CredentialError) and not isinstance(outcome, Draining)


def _log_failure(route: Route, outcome: RelayedResponse | ProxyError, wait: float | None) -> None:
    failed = (
        {"status": outcome.status}
        if isinstance(outcome, RelayedResponse)
        else {"code": outcome.code, "reason": outcome.reason}
    )
    again = {} if wait is None else {"again_in_s": round(wait, 3)}
    get_logger("upstreams").warning("attempt_failed", upstream=route.upstream, **failed, **again)
