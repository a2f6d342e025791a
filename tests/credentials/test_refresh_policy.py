"""The delays after failures."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.refresh_policy import Backoff, RefreshPolicy, retry_delay
from proxy.credentials.sources import TokenFetchError, as_fetch_error
from proxy.elapsed import elapsed
from tests.credentials.fakes import DOWN, REFUSED, highest, lowest


def test_a_token_ages_on_the_clock_that_runs_while_the_machine_is_suspended() -> None:
    assert RefreshPolicy().clock is elapsed


@pytest.mark.parametrize(
    ("asked", "waited"), [(0.0, 0.5), (20.0, 20.0), (120.0, 120.0), (1e9, 300.0), (float("inf"), 300.0)]
)
@pytest.mark.parametrize("permanent", [True, False])
@pytest.mark.parametrize("remaining", [None, 100.0])
def test_the_delay_that_the_issuer_asks_for_is_used_within_bounds(
    asked: float, waited: float, *, permanent: bool, remaining: float | None
) -> None:
    error = TokenFetchError("busy", permanent=permanent, retry_after=asked)
    assert retry_delay(error, 1, remaining, lowest) == waited


def test_processes_that_the_issuer_asks_to_wait_until_the_same_moment_do_not_ask_at_once() -> None:
    error = TokenFetchError("busy", retry_after=20.0)
    assert [Backoff(draw).fail(error, 0.0, None) for draw in (lowest, highest)] == [20.0, 22.0]


@pytest.mark.parametrize("remaining", [None, 100.0])
def test_a_refused_fetch_is_retried_soon_a_few_times_and_then_less_often(remaining: float | None) -> None:
    delays = [retry_delay(REFUSED, failures, remaining, highest) for failures in range(1, 17)]
    assert delays == [0.8] * 8 + [1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]
    assert retry_delay(REFUSED, 1, remaining, lowest) >= 0.5
    assert retry_delay(REFUSED, 10**9, remaining, highest) == 60.0


def test_without_a_token_the_issuer_is_probed_about_once_a_second() -> None:
    assert retry_delay(DOWN, 1, None, lowest) == 1.0
    assert retry_delay(DOWN, 99, None, highest) == 1.5
    assert retry_delay(DOWN, 5, -3.0, lowest) == 1.0  # an expired token does not count


def test_with_a_token_in_hand_the_delays_double_up_to_a_bound() -> None:
    delays = [retry_delay(DOWN, failures, 300.0, highest) for failures in range(1, 8)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert retry_delay(DOWN, 10**9, float("inf"), highest) == 15.0
    assert retry_delay(DOWN, 3, 300.0, lowest) == 2.0


def test_no_delay_takes_more_than_a_quarter_of_what_remains_nor_less_than_a_moment() -> None:
    assert retry_delay(DOWN, 9, 20.0, highest) == 5.0
    assert retry_delay(DOWN, 9, 1e-9, lowest) == 0.25


@given(
    st.booleans(),
    st.none() | st.floats(0.0),
    st.integers(1, 10**6),
    st.none() | st.floats(allow_nan=False),
    st.floats(0.0, 1.0),
)
def test_every_delay_is_between_a_quarter_of_a_second_and_five_minutes(
    permanent: bool,  # noqa: FBT001 - hypothesis passes it so
    retry_after: float | None,
    failures: int,
    remaining: float | None,
    fraction: float,
) -> None:
    error = TokenFetchError("no", permanent=permanent, retry_after=retry_after)
    delay = retry_delay(error, failures, remaining, lambda low, high: low + fraction * (high - low))
    assert 0.25 <= delay <= 300.0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DOWN, "the issuer is down"),
        (TimeoutError("s3cret"), "the token source did not answer in time"),
        (asyncio.CancelledError("s3cret"), "the token source failed: CancelledError"),
        (ValueError("s3cret"), "the token source failed: ValueError"),
    ],
)
def test_any_exception_becomes_a_safe_log_reason(error: BaseException, reason: str) -> None:
    fetch_error = as_fetch_error(error)
    assert (fetch_error.reason, fetch_error.permanent, fetch_error.retry_after) == (reason, False, None)


def test_a_backoff_counts_failures_in_a_row() -> None:
    backoff = Backoff(highest)
    assert backoff.remaining(0.0) == 0.0
    delays = [backoff.fail(DOWN, now, 300.0) for now in (100.0, 110.0)]
    assert delays == [retry_delay(DOWN, failures, 300.0, highest) for failures in (1, 2)]
    assert backoff.failures == 2
    assert backoff.failure is DOWN
    assert backoff.until == 110.0 + delays[1]
    assert backoff.remaining(110.5) == delays[1] - 0.5
    assert backoff.remaining(1000.0) == 0.0
