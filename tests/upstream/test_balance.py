"""Several upstreams share the requests by their weights."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.routing import Balance

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 20), min_size=1)


def turns(balance: Balance, count: int) -> str:
    """Whose turn it was, one after the other."""
    return "".join(balance.order(balance.names)[0] for _ in range(count))


def test_turns_are_well_apart() -> None:
    assert turns(Balance({"a": 5, "b": 1, "c": 1}), 7) == "aabacaa"


def test_one_upstream_has_every_turn() -> None:
    assert turns(Balance({"a": 7}), 3) == "aaa"


@given(WEIGHTS, st.integers(0, 40))
def test_shares_are_exact_over_every_round(weights: dict[str, int], before: int) -> None:
    balance = Balance(weights)
    turns(balance, before * sum(weights.values()))
    assert Counter(turns(balance, sum(weights.values()))) == weights


@given(WEIGHTS, st.sets(st.sampled_from("abcdef")))
def test_whoever_fails_there_is_always_another(weights: dict[str, int], able: set[str]) -> None:
    assert {*Balance(weights).order(able)} == {*weights}


def test_while_one_is_left_alone_the_others_keep_their_shares() -> None:
    balance = Balance({"a": 3, "b": 1, "c": 1})
    turns(balance, 2)
    found = Counter(balance.order({"b", "c"})[0] for _ in range(100))
    assert found["b"] + found["c"] == 100
    assert abs(found["b"] - found["c"]) <= 2  # the turns before were not at the end of a round
    assert Counter(turns(balance, 500)) == {"a": 300, "b": 100, "c": 100}
