"""The health of one upstream: its circuit breaker, its retry budget, and the results of attempts."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Final, NamedTuple, Self

from proxy.errors import (
    BadResponse,
    CircuitOpen,
    InvalidResponse,
    ProxyError,
    SharedTimeout,
    Unreachable,
    UpstreamForbidden,
    UpstreamTimeout,
)
from proxy.lean_imports import without
from proxy.settings import Breaker, Upstream
from proxy.telemetry import UpstreamReading, get_logger

with without("redis"):  # It imports redis-py for a store that is not used here.
    from purgatory.domain.messages.events import ContextChanged
    from purgatory.domain.model import OPENED, Context, HalfOpenedState, OpenedState

RETRIES_MIN: Final = 5.0
"""Retries that are allowed at first."""
RETRIES_MAX: Final = 50.0
"""Unused retries accumulate up to this number."""
FAILURES: Final = (Unreachable, BadResponse, UpstreamTimeout)
"""Errors that count as failures of the upstream. A missing token does not."""
ANSWERS: Final = (UpstreamForbidden, InvalidResponse)
"""Errors that show a working upstream. They may concern one request only, such as one that is redirected."""
FAILING: Final = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
"""Statuses that count as failures. A 500 may concern one request only, and a 429 comes from a working
upstream."""


class RetryBudget:
    """Allows retries in proportion to first attempts, which fill a bucket that retries empty.

    Args:
        share: The number of retries for each first attempt, such as 0.2.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._saved = RETRIES_MIN if share else 0.0

    def deposit(self) -> None:
        """Count a first attempt."""
        self._saved = min(self._saved + self._share, RETRIES_MAX)

    def withdraw(self) -> bool:
        """Count one more retry if it is allowed, and return whether it is."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class Ticket(NamedTuple):
    """An attempt, and the state of the circuit in which it started."""

    period: int
    """The number of state changes so far; results of attempts from before the last one are ignored."""


class CircuitBreaker:
    """The circuit breaker of one upstream: after failures in a row it opens, then one request tries again.

    The library has the states and counts failures. Time is measured here, because the library reads the wall
    clock, which may be set back; and one probe is admitted here, because the library admits every request to
    a half-open circuit.

    Args:
        upstream: Its name, for the log.
        settings: How many failures open the circuit, and for how long.
    """

    def __init__(self, upstream: str, settings: Breaker) -> None:
        self._upstream = upstream
        self._context = Context(upstream, settings.failures, settings.cool_down)
        self._opened_at = 0.0
        self._period = 0
        self._probing = False
        self._log = get_logger("upstreams")

    @property
    def state(self) -> str:
        """`closed`, `opened` or `half-opened`."""
        return self._context.state

    @property
    def retry_in(self) -> float:
        """Seconds until an attempt may be made; 0 if it may now."""
        if self.state == OPENED:
            return max(self._opened_at + self._context.ttl - time.monotonic(), 0.0)
        return 1.0 if self._probing else 0.0

    def begin(self) -> Ticket:
        """Begin an attempt; `end` or `abandon` must follow.

        Raises:
            CircuitOpen: The circuit is open, or another request is probing the upstream.
        """
        wait = self.retry_in
        if wait:
            raise CircuitOpen(retry_after=wait, reason="the circuit is open")
        if self.state == OPENED:
            self._context.set_state(HalfOpenedState())
            self._log_changes()
            self._probing = True
        return Ticket(self._period)

    def end(self, ticket: Ticket, failure: Exception | None) -> None:
        """End an attempt with a response, or with a failure of the upstream."""
        if ticket.period != self._period:
            return
        self._probing = False
        if failure is not None:
            self._context.handle_exception(failure)
        else:
            self._context.handle_end_request()
        self._log_changes()

    def abandon(self, ticket: Ticket) -> None:
        """End an attempt that proves nothing about the upstream, such as one whose caller left."""
        if ticket.period == self._period and self._probing:
            self._probing = False
            self._context.set_state(OpenedState(self._upstream))  # the next request may probe
            self._context.messages.clear()

    def _log_changes(self) -> None:
        for message in self._context.messages:
            if isinstance(message, ContextChanged):
                self._period += 1
                if message.state == OPENED:
                    self._opened_at = time.monotonic()
                self._log.warning("circuit", upstream=self._upstream, state=message.state)
        self._context.messages.clear()


class UpstreamHealth:
    """The state of one upstream across requests.

    Args:
        name: The name of the upstream.
        settings: Its section.
        has_alternative: Whether another upstream can be tried instead: then it has a breaker by default.
    """

    def __init__(self, name: str, settings: Upstream, *, has_alternative: bool = False) -> None:
        self._name = name
        self._made_of = (settings, has_alternative)
        breaker = settings.breaker or (Breaker() if has_alternative else None)
        self._breaker = None if breaker is None else CircuitBreaker(name, breaker)
        self.retries = settings.retries
        self.budget = RetryBudget(settings.retries.budget)
        self._results: Counter[str] = Counter()

    def is_like(self, other: "UpstreamHealth") -> bool:
        """Whether both belong to the same upstream with the same settings."""
        return self._name == other._name and self._made_of == other._made_of

    @property
    def retry_in(self) -> float:
        """Seconds until the upstream may be tried; 0 if it may be tried now."""
        return 0.0 if self._breaker is None else self._breaker.retry_in

    def attempt(self) -> "AttemptEnd":
        """Watch an attempt; set `status`, and `concerns_request` if it applies, inside the block.

        An attempt without a status or an error is not counted.

        Entering the context raises:
            CircuitOpen: it may not be made.
        """
        return AttemptEnd(self._breaker, self._count)

    def _count(self, end: "AttemptEnd") -> None:
        error, status = end.error, end.status
        if error is not None:
            self._results[error.code] += 1
        elif status is not None:
            self._results[f"{status // 100}xx"] += 1

    def reading(self) -> UpstreamReading:
        """Return the state for `/metrics`."""
        state = None if self._breaker is None else self._breaker.state
        return UpstreamReading(self._name, state, dict(self._results))


class AttemptEnd(contextlib.AbstractContextManager["AttemptEnd"]):
    """The end of an attempt: an error, or a status.

    Args:
        breaker: The circuit breaker of the upstream, if it has one.
        count: Called at the end of the attempt.
    """

    def __init__(self, breaker: CircuitBreaker | None, count: Callable[["AttemptEnd"], None]) -> None:
        self.error: ProxyError | None = None
        self.status: int | None = None
        self.concerns_request = False
        """Whether the status may concern this request only."""
        self._breaker = breaker
        self._ticket: Ticket | None = None
        self._count = count

    def __enter__(self) -> Self:
        if self._breaker is not None:
            self._ticket = self._breaker.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, ProxyError):
            self.error = error
        if self._breaker is not None and self._ticket is not None:
            _report(self._breaker, self._ticket, self)
        self._count(self)


def _report(breaker: CircuitBreaker, ticket: Ticket, end: AttemptEnd) -> None:
    """Report the end of an attempt to the circuit breaker."""
    answered = end.status is not None or isinstance(end.error, ANSWERS)
    if answered and (end.status not in FAILING or end.concerns_request):
        breaker.end(ticket, None)
    elif answered or (isinstance(end.error, FAILURES) and not isinstance(end.error, SharedTimeout)):
        breaker.end(ticket, end.error or BadResponse())
    else:
        breaker.abandon(ticket)
