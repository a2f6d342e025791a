"""A record: another process reads exactly what one has stored."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.sharing.record import Seal, adopt, read_record, write_record
from proxy.credentials.token import FOLLOWER_FRACTION, FetchedToken, with_deadlines
from proxy.secret import Secret
from tests.credentials.fakes import lowest

SEAL = Seal([b"k" * 32])
lives = st.floats(0.001, 1e7) | st.just(math.inf)


@given(st.text(min_size=1), lives, st.none() | st.floats(0, 1e6))
def test_a_written_record_is_read_back(token: str, lifetime: float, refresh_in: float | None) -> None:
    fetched = FetchedToken(Secret(token), lifetime, refresh_in, certain=len(token) % 2 == 0)
    raw = b"12 " + write_record(fetched, SEAL, "place")
    assert read_record(raw, SEAL, "place") == fetched


EMPTY = b"7 " + SEAL.close(b"{}", "place")


@pytest.mark.parametrize("raw", [b"", b"7", b"7 ", b"garbage", pytest.param(EMPTY, id="empty")])
def test_an_unreadable_record_is_none(raw: bytes) -> None:
    assert read_record(raw, SEAL, "place") is None


@given(st.floats(2.0, 1e6), st.floats(0.0, 0.99))
def test_the_expiry_is_that_of_the_store(lifetime: float, gone: float) -> None:
    fetched = FetchedToken(Secret("t"), lifetime)
    minted = with_deadlines(fetched, generation=1, obtained=0.0, uniform=lowest)
    remaining = minted.expires_at * (1 - gone)
    adopted = adopt(fetched, read_at=5000.0, remaining=remaining, generation=4, uniform=lowest)
    assert adopted.expires_at == pytest.approx(5000.0 + remaining)
    assert adopted.refresh_at == pytest.approx(adopted.obtained + FOLLOWER_FRACTION[0] * lifetime)
    assert adopted.adopted
    assert adopted.generation == 4
