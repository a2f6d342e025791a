"""The state of a flight: which token is better than the current one, and the number of the next one."""

import math

import pytest
from msgspec.structs import replace

from proxy.credentials import Token
from proxy.credentials.sharing import FlightContext
from proxy.credentials.token import FetchedToken
from proxy.secret import Secret


def lowest(low: float, _high: float) -> float:
    return low


def token(text: str, obtained: float = 0.0, lifetime: float = 300.0) -> Token:
    """Return a token with this text."""
    return FlightContext().next_token(FetchedToken(Secret(text), lifetime), obtained, lowest)


OLD = token("old")


@pytest.mark.parametrize(
    ("known", "offered", "better"),
    [
        (FlightContext(), token("any"), True),
        (FlightContext(current=OLD), token("old", 10.0), False),
        (FlightContext(current=OLD), token("new", 10.0), True),
        (FlightContext(current=OLD), token("new", 10.0, lifetime=100.0), False),
        (FlightContext(current=OLD, rejected=frozenset({OLD.digest})), token("new", 10.0, 100.0), True),
        (FlightContext(current=OLD, rejected=frozenset({OLD.digest})), token("new", -10.0), False),
        (FlightContext(rejected=frozenset({token("dead").digest})), token("dead"), False),
        (FlightContext(current=token("old", 0.0, math.inf)), token("new", 5.0, math.inf), True),
        (FlightContext(current=token("old", 5.0, math.inf)), token("new", 0.0, math.inf), False),
        (FlightContext(current=token("old", 0.0, math.inf)), token("old", 5.0, math.inf), False),
        (FlightContext(current=OLD, exclusive=True), token("new", 5.0, lifetime=100.0), True),
        (FlightContext(current=OLD, exclusive=True), token("new", -5.0, lifetime=900.0), False),
        (FlightContext(current=OLD, exclusive=True), token("old", 5.0), False),
    ],
)
def test_a_better_token_lives_longer_or_is_newer_or_replaces_a_rejected_or_revoked_one(
    known: FlightContext, offered: Token, *, better: bool
) -> None:
    assert known.is_better(offered, 10.0) is better


def test_an_expired_token_is_never_better() -> None:
    assert not FlightContext().is_better(token("any"), 1000.0)


def test_a_new_token_gets_the_next_number_and_no_more_life_than_known() -> None:
    known = FlightContext(generation=6, longest=60.0)
    minted = known.next_token(FetchedToken(Secret("x"), 300.0), 5.0, lowest, adopted=True)
    assert (minted.generation, minted.adopted) == (7, True)
    assert minted.expires_at <= 65.0
    assert (
        replace(known, longest=1e9).next_token(FetchedToken(Secret("x"), 300.0), 5.0, lowest).expires_at
        > 65.0
    )
