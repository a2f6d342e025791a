"""The deadlines of a token, and its fingerprint in logs."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.credentials.token import FetchedToken, shortened, with_deadlines
from proxy.secret import Secret
from tests.credentials.fakes import build_token, highest, lowest


@pytest.mark.parametrize(
    ("lifetime", "refresh_in", "soft", "hard"),
    [
        (300.0, None, (180.0, 225.0), 290.0),
        (100.0, None, (60.0, 75.0), 95.0),
        (86400.0, None, (51840.0, 64800.0), 86390.0),
        (2.0, None, (1.2, 1.5), 1.9),
        (1.99, None, (1.8905, 1.8905), 1.8905),  # too short to refresh ahead
        (float("inf"), None, (float("inf"), float("inf")), float("inf")),
        (300.0, 135.0, (120.0, 150.0), 290.0),
        (300.0, 299.0, (261.0, 261.0), 290.0),  # a late hint leaves time for another try
        (300.0, 300.0, (180.0, 225.0), 290.0),  # a hint that cannot be followed
        (300.0, 0.5, (180.0, 225.0), 290.0),  # nor can this one: a fetch every half second
        (float("inf"), 100.0, (80.0, 100.0), float("inf")),  # refreshed, never later than the hint
        (float("inf"), 2.0, (1.6, 2.0), float("inf")),
        (float("inf"), 1.99, (float("inf"), float("inf")), float("inf")),  # a hint that cannot be followed
        (float("inf"), float("inf"), (float("inf"), float("inf")), float("inf")),
    ],
)
def test_the_deadlines_of_a_token(
    lifetime: float, refresh_in: float | None, soft: tuple[float, float], hard: float
) -> None:
    for uniform, expected in ((lowest, soft[0]), (highest, soft[1])):
        fetched = FetchedToken(Secret("t"), lifetime, refresh_in)
        token = with_deadlines(fetched, generation=7, obtained=1000.0, uniform=uniform)
        assert token.refresh_at == pytest.approx(1000.0 + expected)
        assert token.expires_at == pytest.approx(1000.0 + hard)
        assert token.lifetime == pytest.approx(hard)
        assert (token.generation, token.obtained) == (7, 1000.0)
        assert token.secret == Secret("t")


@pytest.mark.parametrize(
    ("announced", "longest", "expiry", "end"),
    [
        (300.0, math.inf, 290.0, 300.0),
        (300.0, 100.0, 95.0, 300.0),  # the issuer announces a longer lifetime than its tokens have
        (math.inf, math.inf, math.inf, math.inf),
        (math.inf, 100.0, 95.0, 95.0),
    ],
)
def test_the_lifetime_of_a_token_is_reported_as_ages(
    announced: float, longest: float, expiry: float, end: float
) -> None:
    fetched = FetchedToken(Secret("t"), announced)
    token = with_deadlines(fetched, generation=1, obtained=1000.0, uniform=lowest, longest=longest)
    life = token.life(1012.0)
    assert [*life] == pytest.approx([12.0, token.refresh_at - 1000.0, expiry, end])


def test_soft_is_at_60_to_75_percent_and_varies() -> None:
    draw = random.Random(16).uniform
    drawn = [
        with_deadlines(FetchedToken(Secret("t"), 300.0), generation=1, obtained=0.0, uniform=draw).refresh_at
        / 300.0
        for _ in range(10_000)
    ]
    assert 0.60 <= min(drawn) < 0.601
    assert 0.749 < max(drawn) <= 0.75
    assert sum(drawn) / len(drawn) == pytest.approx(0.675, abs=0.002)


@given(
    st.floats(1e-3, 1e9),
    st.none() | st.floats(1e-3, 1e9),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1e6),
)
def test_the_refresh_is_due_before_the_expiry_and_the_expiry_precedes_the_end(
    lifetime: float, refresh_in: float | None, fraction: float, obtained: float
) -> None:
    fetched = FetchedToken(Secret("t"), lifetime, refresh_in)
    token = with_deadlines(
        fetched, generation=1, obtained=obtained, uniform=lambda low, high: low + fraction * (high - low)
    )
    assert obtained < token.refresh_at <= token.expires_at < obtained + lifetime
    assert (token.refresh_at < token.expires_at) == (lifetime >= 2.0)


@given(st.floats(2.0, 1e9), st.floats(0.0, 1.0), st.floats(0.0, 1e6))
def test_a_token_without_an_expiry_is_refreshed_before_the_hint_and_stays_valid(
    refresh_in: float, fraction: float, obtained: float
) -> None:
    token = with_deadlines(
        FetchedToken(Secret("t"), math.inf, refresh_in),
        generation=1,
        obtained=obtained,
        uniform=lambda low, high: low + fraction * (high - low),
    )
    assert obtained + 0.79 * refresh_in < token.refresh_at
    assert token.refresh_at <= (obtained + refresh_in) * (1 + 1e-12)
    assert token.expires_at == math.inf


def test_a_fingerprint_depends_only_on_the_token() -> None:
    one, again, other = (
        build_token("one", generation=1),
        build_token("one", generation=2, lifetime=10.0),
        build_token("other", generation=1),
    )
    assert one.digest == again.digest != other.digest
    assert len(one.fingerprint) == 8
    assert int(one.fingerprint, 16) == int.from_bytes(one.digest[:4])


def test_a_token_is_shortened_to_a_lifetime_but_never_prolonged() -> None:
    token = build_token()
    assert shortened(token, token.lifetime) is token
    assert shortened(token, math.inf) is token
    short = shortened(token, 10.0)
    assert short.refresh_at == token.obtained + 6.0
    assert short.expires_at == token.obtained + 9.5
    assert short.digest == token.digest
    early = replace(token, refresh_at=token.obtained + 1.0)
    assert shortened(early, 10.0).refresh_at == early.refresh_at
