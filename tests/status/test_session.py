"""A session of the status page: valid until it expires or the key changes, and impossible to forge."""

import pytest

from proxy.secret import Secret
from proxy.status.session import SECONDS, is_valid, new_session

KEY = Secret("status-key-8f3a-5b20")
NOW = 1_795_700_000.0


def test_a_session_is_valid_until_it_expires() -> None:
    session = new_session(KEY, NOW)
    assert is_valid(session, KEY, NOW)
    assert is_valid(session, KEY, NOW + SECONDS - 1)
    assert not is_valid(session, KEY, NOW + SECONDS)


def test_another_key_ends_the_session() -> None:
    assert not is_valid(new_session(KEY, NOW), Secret("status-key-8f3a-5b21"), NOW)


def test_it_does_not_hold_the_key() -> None:
    session = new_session(KEY, NOW)
    assert KEY.reveal() not in session
    assert KEY.digest().hex() not in session


@pytest.mark.parametrize("forged", ["", ".", "9999999999", "9999999999.", "9999999999.00", "x.é", "9" * 5000])
def test_other_text_is_not_a_session(forged: str) -> None:
    assert not is_valid(forged, KEY, NOW)


def test_a_later_expiry_needs_another_signature() -> None:
    expiry, _, signature = new_session(KEY, NOW).partition(".")
    assert not is_valid(f"{int(expiry) + 1}.{signature}", KEY, NOW)
