"""What is remembered of an upstream: failures that count, retries that are left."""

import pytest

from proxy.errors import (
    BadResponse,
    CircuitOpen,
    Overloaded,
    ProxyError,
    TokenUnavailable,
    Unreachable,
    UpstreamTimeout,
)
from proxy.settings import Breaker, Upstream
from proxy.upstream.health import RETRIES_MAX, RETRIES_MIN, RetryBudget, UpstreamHealth


def build_health(*, has_alternative: bool = False, failures: int | None = None) -> UpstreamHealth:
    """That of an upstream called chat."""
    breaker = None if failures is None else Breaker(failures=failures)
    section = Upstream(base_url="http://chat.test/v1", breaker=breaker)
    return UpstreamHealth("chat", section, has_alternative=has_alternative)


def attempt(health: UpstreamHealth, error: ProxyError | None = None, status: int | None = None) -> None:
    """One attempt that ends so."""
    with health.attempt() as end:
        end.error, end.status = error, status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unreachable(), None),
        (BadResponse(), None),
        (UpstreamTimeout(), None),
        (None, 502),
        (None, 503),
        (None, 504),
    ],
)
def test_an_upstream_in_trouble_opens_its_circuit(error: ProxyError | None, status: int | None) -> None:
    health = build_health(failures=2)
    for _ in range(2):
        attempt(health, error, status)
    assert health.opens_in > 0
    with pytest.raises(CircuitOpen):
        attempt(health, status=200)


@pytest.mark.parametrize(
    ("error", "status"),
    [(TokenUnavailable(), None), (Overloaded(), None), (None, 429), (None, 500), (None, 400), (None, 200)],
)
def test_what_tells_of_no_trouble_does_not(error: ProxyError | None, status: int | None) -> None:
    health = build_health(failures=1)
    attempt(health, error, status)
    assert health.opens_in == 0


def test_a_caller_who_leaves_tells_nothing() -> None:
    health = build_health(failures=2)
    attempt(health, Unreachable())
    with pytest.raises(KeyboardInterrupt), health.attempt():
        raise KeyboardInterrupt
    attempt(health, Unreachable())
    assert health.opens_in > 0


def test_without_an_alternative_there_is_no_breaker_unless_it_is_asked_for() -> None:
    alone, beside = build_health(), build_health(has_alternative=True)
    for health in (alone, beside):
        for _ in range(5):
            attempt(health, Unreachable())
    assert (alone.opens_in, alone.reading().circuit) == (0, None)
    assert (beside.opens_in > 0, beside.reading().circuit) == (True, "opened")


def test_how_attempts_ended_is_counted() -> None:
    health = build_health()
    for status in (200, 201, 429):
        attempt(health, status=status)
    attempt(health, Unreachable())
    assert health.reading().attempts == {"2xx": 2, "4xx": 1, "upstream_unreachable": 1}


def test_retries_are_in_proportion_to_requests() -> None:
    budget = RetryBudget(0.2)
    while budget.withdraw():
        pass
    for _ in range(100):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(100)) == pytest.approx(20, abs=1)


def test_a_quiet_upstream_has_a_few_retries_and_saves_up_no_more_than_so_many() -> None:
    budget = RetryBudget(0.2)
    assert sum(budget.withdraw() for _ in range(100)) == RETRIES_MIN
    for _ in range(10_000):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(100)) == RETRIES_MAX


def test_a_budget_of_nothing_allows_none() -> None:
    budget = RetryBudget(0.0)
    budget.deposit()
    assert not budget.withdraw()
