"""How one upstream is doing: its circuit, its budget of retries, and how attempts ended."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from proxy.errors import BadResponse, ProxyError, Unreachable, UpstreamForbidden, UpstreamTimeout
from proxy.settings import Breaker, Upstream
from proxy.telemetry import UpstreamReading
from proxy.upstream.breaker import CircuitBreaker, Ticket

RETRIES_MIN: Final = 5.0
"""Retries to begin with."""
RETRIES_MAX: Final = 50.0
"""No good time saves up more than this."""
FAILURES: Final = (Unreachable, BadResponse, UpstreamTimeout)
"""What tells of an upstream in trouble. A token that cannot be had does not."""
FAILING: Final = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
"""Statuses that do; a 500 is an answer to one request, and a 429 comes from an upstream that works."""


class RetryBudget:
    """Allows retries in proportion to first attempts: a bucket that those fill and these empty.

    Args:
        share: Retries beside every first attempt.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._saved = RETRIES_MIN if share else 0.0

    def deposit(self) -> None:
        """A first attempt was made."""
        self._saved = min(self._saved + self._share, RETRIES_MAX)

    def withdraw(self) -> bool:
        """Whether one more retry may be made; then it is counted."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class UpstreamHealth:
    """What is remembered of one upstream from request to request.

    Args:
        name: The upstream's.
        settings: Its section.
        has_alternative: Whether another one can be asked instead: then there is a breaker by default.
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
        """Whether both watch the same upstream in the same way."""
        return self._name == other._name and self._made_of == other._made_of

    @property
    def opens_in(self) -> float:
        """Seconds until it may be asked; 0 if it may now."""
        return 0.0 if self._breaker is None else self._breaker.opens_in

    @contextlib.contextmanager
    def attempt(self) -> Iterator["AttemptEnd"]:
        """Watch an attempt; its status is to be noted inside. Without a status or an error it proves nothing.

        Raises:
            CircuitOpen: it may not be made.
        """
        breaker = self._breaker
        ticket = None if breaker is None else breaker.begin()
        end = AttemptEnd()
        try:
            yield end
        except ProxyError as error:
            end.error = error
            raise
        finally:
            if breaker is not None and ticket is not None:
                _tell(breaker, ticket, end)
            self._count(end)

    def _count(self, end: "AttemptEnd") -> None:
        error, status = end.error, end.status
        if error is not None:
            self._results[error.code] += 1
        elif status is not None:
            self._results[f"{status // 100}xx"] += 1

    def reading(self) -> UpstreamReading:
        """How it stands, for `/metrics`."""
        state = None if self._breaker is None else self._breaker.state
        return UpstreamReading(self._name, state, dict(self._results))


@dataclass(slots=True)
class AttemptEnd:
    """How an attempt ended: with an error, or with a status."""

    error: ProxyError | None = None
    status: int | None = None


def _tell(breaker: CircuitBreaker, ticket: Ticket, end: AttemptEnd) -> None:
    """What an attempt tells of the upstream, if anything."""
    if isinstance(end.error, FAILURES) or end.status in FAILING:
        breaker.end(ticket, end.error or BadResponse())
    elif end.status is not None or isinstance(end.error, UpstreamForbidden):  # the upstream answered
        breaker.end(ticket, None)
    else:
        breaker.abandon(ticket)
