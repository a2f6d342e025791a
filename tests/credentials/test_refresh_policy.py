"""Delays after a failure, and the limit on forced refreshes."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.refresh_policy import ForcedRefreshLimit, retry_delay
from proxy.credentials.sources import TokenFetchError, as_fetch_error
from tests.credentials.fakes import DOWN, REFUSED, highest, lowest


@pytest.mark.parametrize(("asked", "waited"), [(0.0, 0.5), (20.0, 20.0), (1e9, 60.0), (float("inf"), 60.0)])
@pytest.mark.parametrize("permanent", [True, False])
@pytest.mark.parametrize("remaining", [None, 100.0])
def test_what_the_issuer_asks_for_wins_within_bounds(
    asked: float, waited: float, *, permanent: bool, remaining: float | None
) -> None:
    error = TokenFetchError("busy", permanent=permanent, retry_after=asked)
    assert retry_delay(error, 1, remaining, lowest) == waited


@pytest.mark.parametrize("remaining", [None, 100.0])
def test_a_refusal_is_asked_again_in_a_minute(remaining: float | None) -> None:
    assert retry_delay(REFUSED, 1, remaining, lowest) == 30.0
    assert retry_delay(REFUSED, 99, remaining, highest) == 60.0


def test_without_a_token_the_issuer_is_probed_about_once_a_second() -> None:
    assert retry_delay(DOWN, 1, None, lowest) == 1.0
    assert retry_delay(DOWN, 99, None, highest) == 1.5


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
    st.none() | st.floats(0.0, exclude_min=True),
    st.floats(0.0, 1.0),
)
def test_every_delay_is_between_a_quarter_of_a_second_and_a_minute(
    permanent: bool,  # noqa: FBT001 - hypothesis passes it so
    retry_after: float | None,
    failures: int,
    remaining: float | None,
    fraction: float,
) -> None:
    error = TokenFetchError("no", permanent=permanent, retry_after=retry_after)
    delay = retry_delay(error, failures, remaining, lambda low, high: low + fraction * (high - low))
    assert 0.25 <= delay <= 60.0


def allow(limit: ForcedRefreshLimit, now: float) -> bool:
    """Make a forced refresh, if one may be made."""
    if not limit.allows(now):
        return False
    limit.spend(now)
    return True


def test_forced_refreshes_grow_rare_while_they_do_not_help() -> None:
    limit = ForcedRefreshLimit()
    allowed = [second for second in range(400) if allow(limit, float(second))]
    assert allowed == [0, 5, 15, 35, 75, 135, 195, 255, 315, 375]


def test_a_quiet_time_resets_the_limit() -> None:
    limit = ForcedRefreshLimit()
    assert [allow(limit, now) for now in (0.0, 5.0, 14.9, 15.0)] == [True, True, False, True]
    assert allow(limit, 15.0 + 20.0 + 20.1)  # the last cool-down and as long again went by
    assert not allow(limit, 15.0 + 40.1 + 4.9)
    assert allow(limit, 15.0 + 40.1 + 5.1)


@given(st.lists(st.floats(0.0, 30.0), max_size=300), st.floats(0.0, 1e6))
def test_forced_refreshes_are_never_closer_than_the_cooldown(gaps: list[float], start: float) -> None:
    limit, now, allowed = ForcedRefreshLimit(), start, []
    for gap in gaps:
        now += gap
        if allow(limit, now):
            allowed.append(now)
    assert bool(allowed) == bool(gaps)  # the first is never refused
    assert all(after - before >= 5.0 - 1e-6 for before, after in itertools.pairwise(allowed))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DOWN, "the issuer is down"),
        (TimeoutError("s3cret"), "the token source did not answer in time"),
        (asyncio.CancelledError("s3cret"), "the token source failed: CancelledError"),
        (ValueError("s3cret"), "the token source failed: ValueError"),
    ],
)
def test_any_exception_becomes_words_fit_for_the_log(error: BaseException, reason: str) -> None:
    fetch_error = as_fetch_error(error)
    assert (fetch_error.reason, fetch_error.permanent, fetch_error.retry_after) == (reason, False, None)
