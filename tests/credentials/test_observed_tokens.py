"""What upstreams show about tokens: acceptance, suspicion, death, and the lifetime learned from them."""

import math

import pytest
from msgspec.structs import replace

from proxy.credentials import Token
from proxy.credentials.observed_tokens import (
    ACCEPTED_MAX,
    DEAD_MAX,
    PROPAGATION_SECONDS,
    PROPAGATION_SECONDS_MAX,
    ObservedTokens,
    Rejection,
)
from proxy.credentials.refresh_policy import HEALTHY_TOKENS
from proxy.credentials.token import digest_of
from proxy.secret import Secret
from proxy.telemetry import TokenState


def token(number: int, obtained: float = 0.0) -> Token:
    """A token that lives for 100 seconds."""
    secret = Secret(f"token-{number}")
    return Token(secret, number, obtained, obtained + 60, obtained + 100, digest_of(secret), announced=100.0)


def test_a_rejected_token_is_suspect_until_a_later_request_is_accepted() -> None:
    observed, one = ObservedTokens(), token(1)
    assert observed.suspect(one, 10.0)
    assert not observed.suspect(one, 11.0)
    assert observed.rejected == {one.digest}
    observed.accepted(one, 10.0)  # sent before the rejection, so it proves nothing
    assert observed.rejected == {one.digest}
    observed.accepted(token(2), 12.0)
    assert observed.rejected == {one.digest}
    observed.accepted(one, 12.0)
    assert observed.rejected == frozenset()


def test_a_rejection_for_another_reason_ends_the_suspicion_of_that_token_alone() -> None:
    observed, one = ObservedTokens(), token(1)
    observed.suspect(one, 10.0)
    observed.acquit(token(2))
    assert observed.rejected == {one.digest}
    observed.acquit(one)
    assert observed.rejected == frozenset()


@pytest.mark.parametrize(
    ("now", "state"), [(0.0, "fresh"), (59.9, "fresh"), (60.0, "stale"), (99.9, "stale"), (100.0, "expired")]
)
def test_the_state_of_a_token_follows_its_deadlines_and_suspicions(now: float, state: TokenState) -> None:
    observed, one = ObservedTokens(), token(1)
    assert observed.state(None, now) == "empty"
    assert observed.state(one, now) == state
    observed.suspect(one, now)
    assert observed.state(one, now) == ("expired" if state == "expired" else "suspect")
    assert observed.state(token(2), now) == state


def test_the_last_accepted_request_is_the_one_sent_last() -> None:
    observed, one = ObservedTokens(), token(1)
    assert not observed.ever_accepted
    assert observed.last_accepted(one) == -math.inf
    observed.accepted(one, 20.0)
    observed.accepted(one, 15.0)
    assert observed.last_accepted(one) == 20.0
    assert observed.ever_accepted


def test_only_a_few_tokens_are_remembered() -> None:
    observed = ObservedTokens()
    many = [token(number) for number in range(2 * max(ACCEPTED_MAX, DEAD_MAX))]
    for each in many:
        observed.accepted(each, 1.0)
        assert observed.died(Rejection(each, 2.0, 3.0))
    assert [each for each in many if observed.last_accepted(each) > 0] == many[-ACCEPTED_MAX:]
    assert observed.rejected == {each.digest for each in many[-DEAD_MAX:]}


def test_a_token_dies_once_and_not_if_it_was_accepted_since() -> None:
    observed, one, two = ObservedTokens(), token(1), token(2)
    assert observed.died(Rejection(one, 10.0, 11.0))
    assert not observed.died(Rejection(one, 12.0, 13.0))
    observed.accepted(two, 11.5)
    assert not observed.died(Rejection(two, 10.0, 11.0))
    assert observed.died(Rejection(two, 12.0, 13.0))


@pytest.mark.parametrize(
    ("sent_at", "successor", "exclusive", "early"),
    [
        (40.0, token(2, obtained=50.0), False, True),
        (40.0, token(2, obtained=50.0), True, True),
        (40.0, token(2, obtained=30.0), True, False),  # the successor existed already, and revoked it
        (40.0, token(2, obtained=40.5), True, False),  # it revoked the token before the upstream checked it
        (40.0, token(2, obtained=30.0), False, True),
        (40.0, replace(token(2, obtained=50.0), adopted=True), True, False),
        (40.0, replace(token(2, obtained=50.0), adopted=True), False, True),
        (100.0, token(2, obtained=110.0), False, False),  # sent when it had expired
    ],
)
def test_an_early_death_is_one_that_no_other_token_caused(
    sent_at: float, successor: Token, *, exclusive: bool, early: bool
) -> None:
    rejection = Rejection(token(1), sent_at, sent_at + 1)
    assert rejection.shows_early_death(successor, exclusive=exclusive) is early
    assert rejection.age == sent_at


def test_a_learned_lifetime_grows_with_tokens_that_work_until_late() -> None:
    observed = ObservedTokens()
    observed.life.record_early_death(20.0, certain=False)
    for number in range(HEALTHY_TOKENS):
        assert observed.life.longest == 20.0
        observed.accepted(token(number), 50.0)
        changed = observed.replaced(token(number), 60.0)
    assert changed
    assert observed.life.longest == 30.0


@pytest.mark.parametrize(
    ("fate", "kept"), [("unused", False), ("dead", False), ("accepted", True), ("suspect", True)]
)
def test_a_token_that_worked_is_kept_when_it_is_replaced_unless_it_is_dead(fate: str, *, kept: bool) -> None:
    observed, one = ObservedTokens(), token(1)
    if fate != "unused":
        observed.accepted(one, 20.0)
    if fate == "suspect":  # the rejected request may have been the reason
        observed.suspect(one, 30.0)
    if fate == "dead":
        observed.died(Rejection(one, 30.0, 31.0))
    observed.replaced(one, 60.0)
    assert observed.predecessor(token(2), 60.0) is (one if kept else None)


def test_a_replaced_token_is_kept_until_a_successor_works() -> None:
    observed, one, two, three = ObservedTokens(), token(1), token(2), token(3)
    observed.accepted(one, 20.0)
    observed.replaced(one, 60.0)
    assert observed.predecessor(two, 60.0) is one
    observed.replaced(two, 66.0)  # without having worked
    assert observed.predecessor(three, 90.0) is one
    observed.accepted(three, 91.0)
    assert observed.predecessor(three, 92.0) is None


def test_upstreams_have_longer_to_learn_of_each_further_token_until_one_works() -> None:
    observed, now, patience = ObservedTokens(), 0.0, []
    observed.accepted(token(1), 0.0)
    for number in range(1, 7):
        observed.replaced(token(number), now)
        began = now
        while not observed.is_overdue(now):
            now += 1.0
        patience.append(now - began)
    assert patience == [PROPAGATION_SECONDS, 10.0, 20.0, 40.0, PROPAGATION_SECONDS_MAX, 60.0]
    observed.accepted(token(7), now)
    observed.replaced(token(7), now)
    assert observed.is_overdue(now + PROPAGATION_SECONDS)


def test_a_replaced_token_is_not_sent_after_its_expiry() -> None:
    observed, one = ObservedTokens(), token(1)
    observed.accepted(one, 20.0)
    observed.replaced(one, 98.0)
    assert observed.predecessor(token(2), 99.9) is one
    assert observed.predecessor(token(2), 100.0) is None
