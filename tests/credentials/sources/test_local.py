"""Tokens and lifetimes in local files and in the output of commands."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.local import as_json, as_text, as_token, time_left
from tests.credentials.sources.test_reply_lifetime import JSON, UNITS, jwt

NOW = 1_700_000_000.0


def left(
    body: Any = None, *expires: tuple[str, str], token: str = "t", since: float = NOW, now: float = NOW
) -> float | None:
    found = time_left(token, body, expires, since=since, now=now, source="the file")
    return None if found is None else found.seconds


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (300, "seconds", 290.0),
        ("300000", "milliseconds", 290.0),
        (NOW + 300, "epoch", 300.0),
        ((NOW + 300) * 1000, "epoch_ms", 300.0),
        (datetime.fromtimestamp(NOW + 300, UTC).isoformat(), "iso8601", 300.0),
        (jwt({"exp": NOW + 300, "iat": NOW - 9000}), "jwt", 300.0),
        (NOW * 1000, "epoch", None),  # milliseconds read as seconds are a mistake, not a long lifetime
        ("soon", "iso8601", None),
        (True, "seconds", None),
        (math.nan, "epoch", None),
        (None, "seconds", None),
    ],
)
def test_instants_count_from_now_and_durations_from_when_they_were_written(
    value: object, unit: str, expected: float | None
) -> None:
    assert left({"at": value}, ("at", unit), since=NOW - 10.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "unit", "certain"),
    [
        (300, "seconds", True),
        (300_000, "milliseconds", True),
        (NOW + 300, "epoch", False),
        ((NOW + 300) * 1000, "epoch_ms", False),
        (datetime.fromtimestamp(NOW + 300, UTC).isoformat(), "iso8601", False),
        ("2023-11-15 06:18:20", "iso8601+08:00", False),
        (jwt({"exp": NOW + 300}), "jwt", False),
        (jwt({"exp": NOW + 300, "iat": NOW}), "jwt", False),  # it may be older than its file
    ],
)
def test_only_a_duration_is_certain(value: object, unit: str, *, certain: bool) -> None:
    found = time_left("t", {"at": value}, [("at", unit)], since=NOW, now=NOW, source="the file")
    assert found is not None
    assert found.certain is certain


def test_the_first_expiry_found_is_used_and_the_tokens_own_last() -> None:
    token = jwt({"exp": NOW + 100})
    body = {"a": "soon", "b": 200, "c": 300}
    assert left(body, ("a", "iso8601"), ("b", "seconds"), ("c", "seconds"), token=token) == 200.0
    assert left(body, ("a", "iso8601"), token=token) == 100.0
    assert left(None, token=token) == 100.0


@pytest.mark.parametrize("token", ["t", "a.b.c", jwt({}), jwt([]), jwt({"exp": NOW + 100}) + ".x", "e30.e30"])
def test_only_a_jwt_with_exp_has_an_expiry(token: str) -> None:
    assert left(None, token=token) is None


@pytest.mark.parametrize("ago", [0.0, 1.0, 1e6])
def test_a_token_past_its_end_is_a_failure(ago: float) -> None:
    for body, expires, token in (
        (None, [], jwt({"exp": NOW - ago, "iat": NOW - ago - 3600})),
        ({"at": NOW - ago}, [("at", "epoch")], "t"),
        ({"at": 10.0}, [("at", "seconds")], "t"),
    ):
        with pytest.raises(TokenFetchError) as failure:
            left(body, *expires, token=token, since=NOW - 10.0 - ago)
        assert failure.value.reason == "the file has a token that has expired"
        assert not failure.value.permanent


@pytest.mark.parametrize("unit", ["seconds", "milliseconds", "epoch", "epoch_ms"])
@pytest.mark.parametrize("value", [0, "0", -1, -300.0])
def test_a_lifetime_of_zero_or_less_is_a_token_past_its_end(value: object, unit: str) -> None:
    with pytest.raises(TokenFetchError, match="has a token that has expired"):
        left({"at": value}, ("at", unit), since=NOW)


@given(JSON, UNITS, st.floats(0, 1e10), st.floats(0, 1e10), JSON.map(jwt) | st.text())
def test_any_reply_has_a_valid_remaining_time_or_none(
    value: object, unit: str, since: float, now: float, token: str
) -> None:
    try:
        seconds = left({"at": value}, ("at", unit), token=token, since=since, now=now)
    except TokenFetchError:
        return
    assert seconds is None or 0.0 < seconds < math.inf


def test_bytes_are_decoded_and_a_failure_does_not_quote_them() -> None:
    assert as_text(b"\xef\xbb\xbf\xc3\xa9", "the file") == "\u00e9"
    assert as_json('{"a": [1]}', "the file") == {"a": [1]}
    assert as_token("a b~", "the file") == "a b~"
    failures: list[tuple[Callable[[], object], str]] = [
        (lambda: as_text(b"s3cret\xff", "the file"), "the file is not valid UTF-8"),
        (lambda: as_json("s3cret", "the file"), "the file is not valid JSON"),
        (lambda: as_json("[" * 100_000, "the file"), "the file is not valid JSON"),
        (lambda: as_token(17, "the file"), "the file has no token"),
        (lambda: as_token("", "the file"), "the file has no token"),
        (
            lambda: as_token("s3\ncret", "the file"),
            "the file has a token that is not one line of printable ASCII",
        ),
        (lambda: as_token("s3cr\u00e9t", "x"), "x has a token that is not one line of printable ASCII"),
    ]
    for failing, told in failures:
        with pytest.raises(TokenFetchError) as failure:
            failing()
        assert failure.value.reason == told
