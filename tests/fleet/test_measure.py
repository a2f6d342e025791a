"""What counts as a gap and as an error, with invented records."""

from itertools import chain

import pytest

from tests.fleet.measure import (
    NO_ANSWER,
    Gap,
    Late,
    Record,
    Starvation,
    Wait,
    error_span,
    errors_of,
    read_records,
    stalls_of,
    without_retry_after,
)

WINDOW = (0.0, 10.0)


def good(*moments: float, target: str = "a") -> list[Record]:
    """Return good answers at these times."""
    return [Record(target, "good", moment - 0.01, moment, 200, "", None) for moment in moments]


def steady(begin: float, end: float, target: str = "a") -> list[Record]:
    """Return a good answer every tenth of a second."""
    return good(*(begin + step / 10 for step in range(round((end - begin) * 10))), target=target)


def bad(ended: float, status: int, code: str = "", retry_after: str | None = None) -> Record:
    """Return a bad answer."""
    return Record("a", "good", ended - 0.01, ended, status, code, retry_after)


def test_the_longest_gap_is_that_of_any_target() -> None:
    records = [*steady(0, 10, "a"), *steady(0, 4, "b"), *steady(6, 10, "b")]
    gap = Starvation([], {}).longest_gap(records, WINDOW)
    assert gap.target == "b"
    assert gap.begin == pytest.approx(3.9)
    assert gap.net == gap.gross == pytest.approx(2.1)


def test_a_target_without_any_success_has_a_gap_as_long_as_the_window() -> None:
    assert Starvation([], {}).longest_gap([bad(1.0, 503)], WINDOW).net == pytest.approx(10.0)
    assert Starvation([], {}).longest_gap([], WINDOW) == Gap(10.0)


def test_gaps_reach_to_the_ends_of_the_window() -> None:
    assert Starvation([], {}).longest_gap(steady(2, 10), WINDOW).net == pytest.approx(2.0)
    assert Starvation([], {}).longest_gap(steady(0, 7), WINDOW).net == pytest.approx(3.1)


def test_a_stall_of_any_control_is_subtracted_once() -> None:
    one = [*steady(0, 4), *steady(5, 10)]
    other = [*steady(0, 4.5), *steady(5.5, 10)]
    stalls = stalls_of([one, other], WINDOW)
    assert [*chain(*stalls)] == pytest.approx([3.9, 5.0, 4.4, 5.5])
    assert Starvation(stalls, {}).seconds == pytest.approx(1.6)
    gap = Starvation(stalls, {}).longest_gap([*steady(0, 3), *steady(6, 10)], WINDOW)
    assert gap.gross == pytest.approx(3.1)
    assert gap.net == pytest.approx(1.5)


def test_a_stall_at_another_time_excuses_nothing() -> None:
    stalls = stalls_of([[*steady(0, 7), *steady(9, 10)]], WINDOW)
    assert Starvation(stalls, {}).longest_gap([*steady(0, 3), *steady(6, 10)], WINDOW).net == pytest.approx(
        3.1
    )


def test_the_pace_of_the_controls_is_no_stall() -> None:
    assert stalls_of([steady(0, 10)], WINDOW) == []


def test_a_control_that_returns_an_error_has_stalled() -> None:
    control = [*steady(0, 4), bad(4.5, 502), *steady(5, 10)]
    assert [*chain(*stalls_of([control], WINDOW))] == pytest.approx([3.9, 5.0])


def test_a_member_that_waited_for_a_processor_is_excused_for_so_long() -> None:
    waits = {"a": [Wait(2.0, 4.0, 1.0), Wait(7.0, 8.0, 1.0)], "b": [Wait(4.0, 6.0, 2.0)]}
    starvation = Starvation([(2.0, 3.0)], waits)
    gap = starvation.longest_gap([*steady(0, 3.1), *steady(6, 10)], WINDOW)
    assert gap.gross == pytest.approx(3.0)
    assert gap.net == pytest.approx(2.5)
    assert starvation.within((2.0, 4.0), "a") == pytest.approx(1.0)  # the wait may have been within the stall


def test_a_token_is_late_unless_it_was_held_up_for_as_long() -> None:
    starvation = Starvation([(1.0, 2.0)], {"a": [Wait(2.0, 3.0, 0.5)]})
    held_up, late = Late("a", 1.0, 1.9), Late("a", 1.5, 3.0)
    assert starvation.really_late([held_up, late]) == [late]


def test_errors_are_counted_by_status_and_code() -> None:
    records = [*good(1.0), bad(2.0, 503, "upstream_unavailable", "1"), bad(3.0, NO_ANSWER, "TimeoutError")]
    assert errors_of(records) == {"503 upstream_unavailable": 1, "0 TimeoutError": 1}
    assert error_span(records) == pytest.approx(1.0)
    assert error_span(good(1.0)) == 0.0


def test_a_503_must_have_a_retry_after() -> None:
    assert without_retry_after([bad(1.0, 503), bad(2.0, 503, "", "1"), bad(3.0, 502)]) == 1


def test_records_are_read_as_they_were_written() -> None:
    line = '["a", "good", 1.0, 2.0, 503, "upstream_unavailable", "1"]\n'
    assert read_records(line) == [Record("a", "good", 1.0, 2.0, 503, "upstream_unavailable", "1")]
