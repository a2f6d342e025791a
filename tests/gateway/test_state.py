"""Tokens: validity, expiry and revocation."""

import pytest

from proxy.gateway import state
from proxy.gateway.state import TokenIssuer
from tests.gateway.caller import ManualClock


def test_a_token_lives_exactly_its_time(clock: ManualClock) -> None:
    tokens = TokenIssuer(clock)
    token = tokens.issue(300.0)
    clock.now += 299.999
    assert tokens.accepts(token)
    clock.now += 0.001
    assert not tokens.accepts(token)


def test_tokens_are_independent(clock: ManualClock) -> None:
    tokens = TokenIssuer(clock)
    first, second = tokens.issue(1.0), tokens.issue(2.0)
    assert first != second
    clock.now += 1.0
    assert not tokens.accepts(first)
    assert tokens.accepts(second)


def test_only_issued_tokens_are_accepted(clock: ManualClock) -> None:
    tokens = TokenIssuer(clock)
    assert not tokens.accepts("")
    assert not tokens.accepts("made-up")


def test_revocation_ends_every_token(clock: ManualClock) -> None:
    tokens = TokenIssuer(clock)
    issued = [tokens.issue(300.0) for _ in range(3)]
    tokens.revoke_all()
    assert not any(tokens.accepts(token) for token in issued)
    assert tokens.accepts(tokens.issue(300.0))


def test_dead_tokens_are_forgotten(clock: ManualClock) -> None:
    tokens = TokenIssuer(clock)
    for _ in range(100):
        tokens.issue(1.0)
        clock.now += 1.0
    assert len(tokens) == 1


def test_live_tokens_are_bounded(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MAX_LIVE_TOKENS", 3)
    tokens = TokenIssuer(clock)
    issued = [tokens.issue(300.0) for _ in range(5)]
    assert [tokens.accepts(token) for token in issued] == [False, False, True, True, True]
