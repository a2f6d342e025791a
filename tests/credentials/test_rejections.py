"""The memory of rejections: bounded, fading, and harmless to other callers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from proxy.credentials.observed_tokens import ROUTES_MAX, Rejection
from proxy.credentials.rejections import (
    CALLERS_MAX,
    COOLDOWN_SECONDS,
    COOLDOWN_SECONDS_MAX,
    DECLINED_MAX,
    DENIED_SECONDS,
    DENIED_SECONDS_MAX,
    PURPOSES_MAX,
    RECENT_SECONDS,
    SPACING_SECONDS,
    Purpose,
    RejectionHistory,
)
from tests.credentials.fakes import build_token

CALLERS = st.sampled_from(["a", "b", "c"])
PURPOSES = st.integers(0, 4).map(lambda number: Purpose("POST", "chat/completions", f"m{number}"))
CHAT, OTHER = Purpose("POST", "chat/completions", "m"), Purpose("POST", "embeddings", "m")


class Memory(RuleBasedStateMachine):
    """Random events in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.history = RejectionHistory()
        self.now = 1000.0
        self.denied_to: set[tuple[Purpose, str]] = set()
        self.touched: set[Purpose] = set()
        self.last_accepted = -math.inf
        self.forced: list[tuple[float, str]] = []

    @rule(seconds=st.floats(0.0, 700.0) | st.floats(0.0, 2.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(purpose=PURPOSES)
    def accepted(self, purpose: Purpose) -> None:
        self.history.accepted(purpose)
        self.last_accepted = self.now
        self.touched.discard(purpose)
        self.denied_to = {pair for pair in self.denied_to if pair[0] != purpose}

    @rule(purpose=PURPOSES, caller=CALLERS)
    def denied(self, purpose: Purpose, caller: str) -> None:
        self.history.denied(purpose, caller, self.now)
        self.denied_to.add((purpose, caller))
        self.touched.add(purpose)

    @rule(purpose=PURPOSES)
    def postponed(self, purpose: Purpose) -> None:
        self.history.postponed(purpose, self.now)
        self.touched.add(purpose)

    @rule()
    def token_changed(self) -> None:
        self.last_accepted = -math.inf

    @rule(purpose=PURPOSES, caller=CALLERS)
    def force(self, purpose: Purpose, caller: str) -> None:
        if self.history.delay(caller, purpose, self.now) == 0:
            self.history.charge(caller, purpose, self.now)
            self.forced.append((self.now, caller))

    @rule(adopted=st.booleans())
    def fetched(self, *, adopted: bool) -> None:
        self.history.fetched(replace(build_token(), adopted=adopted))

    @rule()
    def refund(self) -> None:
        self.history.refund()

    @rule(purpose=PURPOSES, caller=CALLERS)
    def is_never_denied_without_evidence(self, purpose: Purpose, caller: str) -> None:
        if not self.history.is_denied(purpose, caller, self.now, self.last_accepted):
            return
        assert purpose in self.touched
        # Either this caller was denied before, or the token works at this moment.
        works = self.now - self.last_accepted <= RECENT_SECONDS
        assert (purpose, caller) in self.denied_to or works

    @invariant()
    def forced_fetches_keep_their_distance(self) -> None:
        times = [at for at, _ in self.forced[-2:]]
        assert len(times) < 2 or times[1] - times[0] >= SPACING_SECONDS - 1e-9

    @invariant()
    @precondition(lambda self: True)
    def nobody_waits_longer_than_the_longest_cooldown(self) -> None:
        for caller in ("a", "b", "c"):
            assert 0 <= self.history.delay(caller, CHAT, self.now) <= COOLDOWN_SECONDS_MAX


TestMemory = Memory.TestCase


@given(st.integers(1, 50), st.integers(0, 10**6))
def test_useless_fetches_of_one_caller_delay_others_only_by_the_spacing(times: int, began: int) -> None:
    history, now = RejectionHistory(), float(began)
    for _ in range(times):
        now += history.delay("greedy", CHAT, now)
        history.charge("greedy", CHAT, now)
        history.fetched(build_token())
    assert history.delay("greedy", CHAT, now) >= COOLDOWN_SECONDS
    assert history.delay("other", CHAT, now) <= SPACING_SECONDS


def test_a_purpose_that_worked_before_has_its_own_ration() -> None:
    history, now = RejectionHistory(), 0.0
    history.accepted(OTHER)
    for _ in range(20):
        now += history.delay("all", CHAT, now)
        history.charge("all", CHAT, now)
    assert history.delay("all", CHAT, now) == COOLDOWN_SECONDS_MAX
    assert history.delay("all", OTHER, now) <= SPACING_SECONDS
    for _ in range(20):
        now += history.delay("all", OTHER, now)
        history.charge("all", OTHER, now)
    assert history.delay("all", OTHER, now) <= COOLDOWN_SECONDS  # whatever its requests contain


def force(history: RejectionHistory, callers: int, now: float, purpose: Purpose = CHAT) -> list[float]:
    """Fetch a token for each caller as soon as possible, and return how long each had to wait."""
    waits = []
    for number in range(callers):
        waits.append(history.delay(f"caller {number}", purpose, now))
        now += waits[-1]
        history.charge(f"caller {number}", purpose, now)
        history.fetched(build_token(generation=number + 2))
    return waits


def test_the_interval_grows_while_the_fetches_of_several_callers_do_not_help() -> None:
    history = RejectionHistory()
    assert force(history, 6, 0.0) == [0.0, 1.0, 4.0, 16.0, 30.0, 30.0]
    history.accepted(OTHER)
    assert force(history, 3, 200.0) == [0.0, 1.0, 4.0]


def test_the_interval_for_purposes_that_worked_grows_by_their_own_fetches_only() -> None:
    history = RejectionHistory()
    history.accepted(OTHER)
    force(history, 6, 0.0)
    assert history.delay("caller 1", OTHER, 81.0) == SPACING_SECONDS
    assert force(history, 4, 200.0, OTHER) == [0.0, 1.0, 4.0, 16.0]


def test_what_another_route_or_upstream_accepts_does_not_shorten_the_interval() -> None:
    history = RejectionHistory()
    history.accepted(OTHER)
    assert force(history, 3, 0.0, OTHER) == [0.0, 1.0, 4.0]
    history.accepted(CHAT)
    assert history.delay("d", OTHER, 5.0) == 16.0
    history.accepted(OTHER._replace(model="another"))
    assert history.delay("d", OTHER, 5.0) == SPACING_SECONDS
    never = Purpose("POST", "rerank", "m")
    assert force(history, 3, 100.0, never) == [0.0, 1.0, 4.0]
    history.accepted(CHAT._replace(upstream="other"))
    assert history.delay("d", never, 105.0) == 16.0
    history.accepted(CHAT)
    assert history.delay("d", never, 105.0) == SPACING_SECONDS


def test_fetches_that_fail_do_not_lengthen_the_interval() -> None:
    history, now = RejectionHistory(), 0.0
    for number in range(10):
        assert history.delay(f"caller {number}", CHAT, now) == 0.0
        history.charge(f"caller {number}", CHAT, now)
        history.refund()
        now += SPACING_SECONDS


def test_tokens_that_another_process_fetched_count_if_several_callers_are_affected() -> None:
    history, adopted = RejectionHistory(), replace(build_token(), adopted=True)
    for now in (0.0, 1.0, 2.0, 3.0):
        history.charge("a", CHAT, now)
        history.fetched(adopted)
        history.refund()
    assert history.delay("a", CHAT, 4.0) == 0.0
    for now in (4.0, 5.0):
        assert history.delay("b", CHAT, now) == 0.0
        history.charge("b", CHAT, now)
        history.fetched(adopted)
        history.refund()
    assert history.delay("b", CHAT, 6.0) == 3.0


def test_a_fetch_that_helped_costs_no_ration() -> None:
    history, now = RejectionHistory(), 0.0
    for _ in range(20):
        assert history.delay("a", CHAT, now) == 0
        history.charge("a", CHAT, now)
        history.refund()
        now += SPACING_SECONDS
    history.refund()  # nothing is left to undo
    assert history.delay("a", CHAT, now) == 0


def test_a_denial_lasts_longer_each_time_up_to_a_bound_and_ends() -> None:
    history, now, lasts = RejectionHistory(), 0.0, []
    for _ in range(8):
        history.denied(CHAT, "a", now)
        began = now
        while history.is_denied(CHAT, "a", now, -math.inf):
            now += 1.0
        lasts.append(now - began)
    assert lasts[:3] == [DENIED_SECONDS, 2 * DENIED_SECONDS, 4 * DENIED_SECONDS]
    assert lasts[-1] == DENIED_SECONDS_MAX


def test_a_denial_to_one_caller_is_believed_for_another_only_while_the_token_works() -> None:
    history = RejectionHistory()
    history.denied(CHAT, "a", 10.0)
    assert history.is_denied(CHAT, "a", 10.1, -math.inf)
    assert not history.is_denied(CHAT, "b", 10.1, -math.inf)
    assert not history.is_denied(CHAT, "b", 10.2, 9.9)  # sent before
    assert history.is_denied(CHAT, "b", 10.6, 10.5)
    late = 10.5 + RECENT_SECONDS + 0.1
    assert not history.is_denied(CHAT, "b", late, 10.5)  # it may have been revoked since


def test_a_flood_of_names_and_callers_is_bounded() -> None:
    history = RejectionHistory()
    history.denied(CHAT, "a", 0.0)
    for number in range(5 * PURPOSES_MAX):
        purpose = Purpose.of("POST", "x" * 1000 + str(number), "y" * 100_000 + str(number))
        assert sum(len(part or "") for part in purpose) < 200
        history.accepted(purpose)
        history.postponed(purpose, 0.0)
        history.charge(f"caller {number}", purpose, 0.0)
        history.fetched(build_token())
        history.declined(build_token(), "a", purpose, 0.0)
    # Rejections that wait for their turn displace no denial.
    assert history.is_denied(CHAT, "a", 1.0, -math.inf)
    for number in range(5 * PURPOSES_MAX):
        history.denied(Purpose.of("GET", str(number), None), f"caller {number}", 0.0)
    assert history.size <= 3 * PURPOSES_MAX + 2 * CALLERS_MAX + DECLINED_MAX + ROUTES_MAX


def test_long_names_are_distinguished() -> None:
    assert Purpose.of("POST", "e", "m" * 1000) != Purpose.of("POST", "e", "m" * 1001)
    assert Purpose.of("POST", "e", "\ud800" * 100) == Purpose.of("POST", "e", "\ud800" * 100)


def test_a_fetch_that_helped_is_refunded_if_it_replaced_that_token() -> None:
    history = RejectionHistory()
    history.charge("a", CHAT, 0.0, replaces=b"first")
    history.refund_replaced(b"other")
    assert history.delay("a", CHAT, SPACING_SECONDS) == COOLDOWN_SECONDS - SPACING_SECONDS
    history.refund_replaced(b"first")
    assert history.delay("a", CHAT, SPACING_SECONDS) == 0.0
    history.charge("a", CHAT, 1.0)
    history.refund_replaced(b"first")
    assert history.delay("a", CHAT, 1.0 + SPACING_SECONDS) > 0.0


@pytest.mark.parametrize(
    ("fetched_at", "earlier_fetched_at", "worked", "works", "proof"),
    [
        (30.0, [0.0], False, False, True),
        (30.0, [0.0], True, False, False),  # the issuer may have revoked the new token as well
        (30.0, [0.0], True, True, True),
        (40.0, [0.0, 30.0], True, False, True),  # the second new token
        (30.0, [0.0, 10.0], True, False, False),  # only the first token after the first rejection
        (10.0, [0.0], False, True, False),  # fetched before the first rejection
        (30.0, [], False, True, False),
    ],
)
def test_a_newer_token_that_is_rejected_as_well_proves_a_denial(
    fetched_at: float, earlier_fetched_at: list[float], *, worked: bool, works: bool, proof: bool
) -> None:
    history = RejectionHistory()
    if worked:
        history.accepted(CHAT)
    before = [
        Rejection(replace(build_token(), obtained=obtained), 20.0 + place, 21.0 + place)
        for place, obtained in enumerate(earlier_fetched_at)
    ]
    last = Rejection(replace(build_token(), obtained=fetched_at), 50.0, 51.0)
    assert history.proves_denial(last, before, CHAT, works=works) is proof


def test_a_newer_token_proves_a_denial_if_the_previous_one_was_fetched_after_a_rejection_too() -> None:
    history = RejectionHistory()
    history.accepted(CHAT)
    first, second, third = (
        Rejection(replace(build_token(generation=number), obtained=10.0 * number), 50.0, 10.0 * number + 5)
        for number in (1, 2, 3)
    )
    assert not history.proves_denial(second, [first], CHAT, works=False)
    history.charge("a", CHAT, 20.0)
    history.fetched(second.token)
    assert not history.is_fruitless(first.token, CHAT)
    assert not history.proves_denial(second, [first], CHAT, works=False)
    assert history.is_fruitless(second.token, CHAT)
    assert history.proves_denial(third, [second], CHAT, works=False)
    history.accepted(CHAT)
    assert not history.proves_denial(third, [second], CHAT, works=False)
