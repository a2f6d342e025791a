"""Tokens of the fleet tests: read back as written, and never changed unnoticed."""

import pytest

from tests.fleet.tokens import FleetToken

TOKEN = FleetToken(3, 17, 100.25, 105.25, 103.5)


def test_a_token_is_read_back_as_it_was_written() -> None:
    assert FleetToken.decode(TOKEN.encode()) == TOKEN


@pytest.mark.parametrize("change", [("105.250", "905.250"), ("flt-", ""), ("flt-3", "flt-4")])
def test_a_changed_token_is_not_recognised(change: tuple[str, str]) -> None:
    assert FleetToken.decode(TOKEN.encode().replace(*change)) is None


@pytest.mark.parametrize("text", ["", "flt-", "something else"])
def test_other_text_is_not_a_token(text: str) -> None:
    assert FleetToken.decode(text) is None
