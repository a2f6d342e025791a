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
    ROUTE_SECONDS,
    ROUTES_MAX,
    ObservedRoutes,
    ObservedTokens,
    Rejection,
    Route,
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


def test_the_last_token_that_a_route_accepted_is_tried_before_the_last_one_that_worked_anywhere() -> None:
    observed, one, two, three, four = ObservedTokens(), token(1), token(2), token(3), token(4)
    observed.accepted(one, 20.0)
    observed.replaced(one, 60.0)
    observed.accepted(two, 61.0)
    observed.replaced(two, 70.0)
    assert observed.predecessor(three, 71.0) is two
    assert observed.predecessor(three, 71.0, last=one) is one
    assert observed.predecessor(three, 71.0, last=three) is None  # the route knows it
    assert observed.predecessor(three, 71.0, last=four) is two  # a token that was rejected late
    observed.died(Rejection(one, 72.0, 73.0))
    assert observed.predecessor(three, 74.0, last=one) is two
    observed.accepted(three, 75.0)
    assert observed.predecessor(three, 76.0, last=two) is two  # only another route knows it
    assert observed.predecessor(three, 76.0) is None


CHAT, EMBEDDINGS, MODELS = (
    ("chat", "POST", "chat/completions"),
    ("chat", "POST", "embeddings"),
    ("chat", "GET", "models"),
)


def test_each_route_remembers_its_newest_token_and_when_it_accepted_that() -> None:
    routes, one, two = ObservedRoutes(), token(1), token(2)
    assert routes.last_token(CHAT) is None
    assert (routes.first_accepted(CHAT, one), routes.last_accepted(CHAT, one)) == (math.inf, -math.inf)
    for sent_at in (10.0, 12.0, 11.0):
        routes.accepted(CHAT, one, sent_at)
    assert (routes.first_accepted(CHAT, one), routes.last_accepted(CHAT, one)) == (10.0, 12.0)
    assert routes.last_token(EMBEDDINGS) is None
    routes.accepted(CHAT, two, 11.5)
    routes.accepted(CHAT, one, 13.0)  # late
    assert routes.last_token(CHAT) is two
    assert (routes.first_accepted(CHAT, two), routes.last_accepted(CHAT, two)) == (11.5, 11.5)
    assert routes.last_accepted(CHAT, one) == -math.inf
    routes.accepted(CHAT, replace(two, generation=3), 14.0)  # the issuer returned it again
    assert (routes.first_accepted(CHAT, two), routes.last_accepted(CHAT, two)) == (11.5, 14.0)


def test_a_route_that_has_rejected_a_token_keeps_others_from_being_evidence_while_it_works() -> None:
    routes, one = ObservedRoutes(), token(1)
    assert routes.accepted(MODELS, one, 1.0)
    routes.rejected(EMBEDDINGS)  # which has accepted none yet
    assert routes.accepted(MODELS, one, 2.0)
    assert routes.accepted(CHAT, one, 3.0)
    routes.rejected(CHAT)
    assert not routes.accepted(MODELS, one, 4.0)
    assert routes.accepted(CHAT, one, 5.0)
    assert not routes.accepted(MODELS, one, 5.0 + ROUTE_SECONDS)
    assert routes.accepted(MODELS, one, 5.1 + ROUTE_SECONDS)
    routes.rejected(MODELS)  # so that it checks them, too
    routes.accepted(CHAT, one, 700.0)
    assert routes.accepted(MODELS, one, 701.0)


def test_a_route_that_never_worked_goes_by_the_last_one_that_checks_tokens() -> None:
    routes, one = ObservedRoutes(), token(1)
    routes.accepted(MODELS, one, 1.0)
    routes.accepted(CHAT, one, 2.0)
    assert routes.last_accepted(EMBEDDINGS, one) == -math.inf
    routes.rejected(CHAT)
    routes.accepted(MODELS, one, 3.0)
    assert (routes.first_accepted(EMBEDDINGS, one), routes.last_accepted(EMBEDDINGS, one)) == (2.0, 2.0)
    routes.accepted(CHAT, one, 4.0)
    assert routes.last_accepted(EMBEDDINGS, one) == 4.0
    assert routes.last_accepted(EMBEDDINGS, token(2)) == -math.inf
    assert routes.last_token(EMBEDDINGS) is None
    routes.accepted(EMBEDDINGS, one, 1.0)
    assert routes.last_accepted(EMBEDDINGS, one) == 1.0


def invented(number: int) -> Route:
    """Return the route of a path that a caller has invented."""
    return "chat", "POST", f"invented {number}"


def test_the_route_that_was_unused_longest_is_forgotten() -> None:
    routes, one = ObservedRoutes(), token(1)
    routes.accepted(CHAT, one, 1.0)
    routes.accepted(MODELS, one, 1.0)
    for number in range(ROUTES_MAX - 1):
        routes.accepted(CHAT, one, 2.0)
        routes.accepted(invented(number), one, 2.0)
    assert routes.last_token(CHAT) is one
    assert routes.last_token(MODELS) is None


def test_routes_that_never_worked_displace_none_that_did() -> None:
    """Otherwise a caller could make the proxy forget the routes of all others, by inventing paths."""
    routes, one = ObservedRoutes(), token(1)
    routes.accepted(CHAT, one, 1.0)
    routes.rejected(CHAT)
    for number in range(2 * ROUTES_MAX):
        routes.rejected(invented(number))
    assert routes.last_token(CHAT) is one
    assert routes.accepted(CHAT, one, 2.0)
    assert not routes.accepted(MODELS, one, 3.0)
    routes.rejected(EMBEDDINGS)
    for number in range(2 * ROUTES_MAX):
        routes.rejected(invented(number))
        routes.accepted(EMBEDDINGS, one, 4.0)
    assert routes.last_token(EMBEDDINGS) is one
