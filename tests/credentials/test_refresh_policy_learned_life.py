"""The learned lifetime of tokens: two early rejections set it, and longer lifetimes reset it."""

import math

from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.refresh_policy import GROWTH, HEALTHY_TOKENS, SECONDS_MIN, LearnedLife


def test_one_early_death_changes_nothing_and_two_do() -> None:
    life = LearnedLife()
    assert not life.record_early_death(9.0)
    assert life.longest == math.inf
    assert life.record_early_death(8.0)
    assert (life.seconds, life.longest) == (8.0, 8.0)


def test_a_full_life_between_two_early_deaths_resets_the_count() -> None:
    life = LearnedLife()
    life.record_early_death(9.0)
    life.record_full_life(300.0)
    assert not life.record_early_death(8.0)


def test_deaths_at_ages_that_contradict_each_other_change_nothing() -> None:
    life = LearnedLife()
    for age in (9.0, 30.0, 12.0, 60.0, 3.0):  # of tokens that worked until then
        assert not life.record_early_death(age, age - 1.0)


def test_a_token_that_never_worked_has_not_died() -> None:
    life = LearnedLife()
    assert not any(life.record_early_death(1.0, -math.inf, certain=False) for _ in range(9))


def test_more_deaths_are_needed_after_tokens_that_lived_longer() -> None:
    life = LearnedLife()
    life.record_full_life(300.0, 200.0)
    changes = [life.record_early_death(8.0, 7.5, certain=certain) for certain in (False, True, True)]
    assert changes == [False, False, True]
    assert life.seconds == 8.0
    assert not life.record_early_death(3.0, 2.5)
    assert life.seconds == 8.0


def test_one_death_is_enough_where_the_clocks_may_differ() -> None:
    life = LearnedLife()
    assert life.record_early_death(250.0, certain=False)
    assert life.seconds == 250.0


def test_a_longer_life_is_tried_after_some_healthy_ones_and_less_often_each_time_that_fails() -> None:
    life = LearnedLife()
    for _ in range(2):
        life.record_early_death(8.0)
    waits = []
    for _ in range(4):
        count = 1
        while not life.record_full_life(300.0):
            count += 1
        assert life.seconds == GROWTH * 8.0
        waits.append(count)
        assert life.record_early_death(8.0)
        assert life.seconds == 8.0
    assert waits == [HEALTHY_TOKENS, 2 * HEALTHY_TOKENS, 4 * HEALTHY_TOKENS, 8 * HEALTHY_TOKENS]


def test_healthy_lives_lead_back_to_the_announced_one() -> None:
    life, count = LearnedLife(), 0
    for _ in range(2):
        life.record_early_death(8.0)
    while life.seconds is not None:
        life.record_full_life(300.0)
        count += 1
    assert count == HEALTHY_TOKENS * math.ceil(math.log(300.0 / 8.0) / math.log(GROWTH))


@given(st.lists(st.floats(0.0, 1e4) | st.none(), max_size=100), st.floats(1.0, 1e4))
def test_the_believed_life_is_never_too_short_to_use_nor_longer_than_announced(
    events: list[float | None], announced: float
) -> None:
    life = LearnedLife()
    for event in events:
        if event is None:
            life.record_full_life(announced)
        else:
            life.record_early_death(min(event, announced))
        assert life.longest >= SECONDS_MIN
        assert life.seconds is None or life.seconds <= max(announced, SECONDS_MIN)
