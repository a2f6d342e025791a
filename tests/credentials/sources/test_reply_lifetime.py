"""The lifetime of a token, as vendors write it."""

import base64
import json
import math
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.sources.reply import Reply, find_path, read_lifetime
from proxy.credentials.token import FetchedToken, with_deadlines
from proxy.secret import Secret
from tests.credentials.fakes import lowest

NOW = 1_700_000_000.0  # a whole second, as in a Date header
MONTH = 31 * 86400.0
DATE = {"date": formatdate(NOW, usegmt=True)}


def jwt(claims: object) -> str:
    """Return an unsigned token with these claims."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat()


def lifetime(
    value: Any, unit: str, headers: dict[str, str] | None = None, received: float = NOW
) -> float | None:
    """Return the lifetime in a reply with this value."""
    reply = Reply({"at": value}, DATE if headers is None else headers, received)
    return read_lifetime([("at", unit)], reply, "token", MONTH)


TABLE = [
    (300, "seconds", 300.0),
    ("300", "seconds", 300.0),
    (300.0, "seconds", 300.0),
    ("300.5", "seconds", 300.5),
    (" 300 ", "seconds", 300.0),
    ("300s", "seconds", None),
    ("1_000", "seconds", None),
    ("1e3", "seconds", None),
    ("0x1f", "seconds", None),
    ("\uff13\uff10\uff10", "seconds", None),  # digits, but not ASCII ones
    ("+300", "seconds", None),
    ("9" * 5000, "seconds", None),
    (300_000, "milliseconds", 300.0),
    ("300000", "milliseconds", 300.0),
    (NOW + 300, "epoch", 300.0),
    (str(int(NOW) + 300), "epoch", 300.0),
    ((NOW + 300) * 1000, "epoch_ms", 300.0),
    (iso(300), "iso8601", 300.0),
    (iso(300).replace("+00:00", "Z"), "iso8601", 300.0),
    (iso(300).replace("+00:00", ""), "iso8601", 300.0),  # without a zone it counts as UTC
    (iso(300 + 8 * 3600).replace("+00:00", "+08:00"), "iso8601", 300.0),
    (iso(300).replace("+00:00", ".000000Z"), "iso8601", 300.0),
    (jwt({"exp": NOW + 300}), "jwt", 300.0),
    (jwt({"exp": str(int(NOW) + 300), "iat": NOW - 60}), "jwt", 300.0),
    (None, "seconds", None),
    (0, "seconds", None),
    (-1, "seconds", None),
    (math.nan, "seconds", None),
    ("NaN", "seconds", None),
    (math.inf, "seconds", None),
    ("-Infinity", "seconds", None),
    (1e12, "seconds", None),
    (10**400, "seconds", None),
    (True, "seconds", None),
    (False, "epoch", None),
    ([300], "seconds", None),
    ({"s": 300}, "milliseconds", None),
    ("", "seconds", None),
    (NOW - 1, "epoch", None),
    (300, "epoch", None),  # seconds that are read as a point in time
    (NOW + 300, "epoch_ms", None),
    ((NOW + 300) * 1000, "epoch", None),
    ("soon", "iso8601", None),
    (300, "iso8601", None),
    ("9999-12-31T23:59:59-23:59", "iso8601", None),
    ("0001-01-01T00:00:00+23:59", "iso8601", None),
    ("not.a.jwt", "jwt", None),
    ("e30", "jwt", None),
    (17, "jwt", None),
    (jwt([]), "jwt", None),
    (jwt({}), "jwt", None),
    (jwt({"exp": True}), "jwt", None),
    (jwt({"exp": "soon"}), "jwt", None),
]


@pytest.mark.parametrize(("value", "unit", "expected"), TABLE)
def test_lifetimes_of_vendors_determine_the_expiry(value: Any, unit: str, expected: float | None) -> None:
    life = lifetime(value, unit)
    assert life == (None if expected is None else pytest.approx(expected))
    believed = 60.0 if life is None else life  # the default of the recipe
    token = with_deadlines(FetchedToken(Secret("t"), believed), generation=1, obtained=0.0, uniform=lowest)
    assert token.expires_at == pytest.approx(
        57.0 if expected is None else expected - min(10.0, 0.05 * expected)
    )


def test_nothing_at_the_path_is_no_lifetime() -> None:
    assert read_lifetime([("at", "seconds")], Reply({}, DATE, NOW), "token", MONTH) is None
    assert read_lifetime([("at", "seconds")], Reply(None, {}, NOW), "token", MONTH) is None
    assert read_lifetime([], Reply({"at": 300}, DATE, NOW), "token", MONTH) is None


def test_the_first_plausible_candidate_is_used() -> None:
    reply = Reply({"a": 0, "b": "soon", "c": 120, "d": 300}, DATE, NOW)
    candidates = [
        ("missing", "seconds"),
        ("a", "seconds"),
        ("b", "iso8601"),
        ("c", "seconds"),
        ("d", "seconds"),
    ]
    assert read_lifetime(candidates, reply, "token", MONTH) == 120.0
    assert read_lifetime(candidates, reply, "token", 100.0) is None


def test_the_token_may_contain_its_expiry() -> None:
    reply = Reply({"access_token": "unused"}, DATE, NOW)
    assert read_lifetime([("", "jwt")], reply, jwt({"exp": NOW + 300}), MONTH) == pytest.approx(300.0)


UNITS = st.sampled_from(["seconds", "milliseconds", "epoch", "epoch_ms", "iso8601", "jwt"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(JSON | JSON.map(jwt) | st.fixed_dictionaries({"exp": JSON, "iat": JSON}).map(jwt), UNITS, st.text())
def test_any_reply_has_a_valid_lifetime_or_none(value: Any, unit: str, date: str) -> None:
    for headers in ({}, {"date": date}, DATE):
        life = lifetime(value, unit, headers)
        assert life is None or 0.0 < life <= MONTH


@given(st.floats(2.0, MONTH - 10.0), st.sampled_from(["seconds", "milliseconds", "epoch", "epoch_ms", "jwt"]))
def test_the_same_lifetime_is_read_in_any_unit(life: float, unit: str) -> None:
    value = {
        "seconds": life,
        "milliseconds": life * 1000,
        "epoch": NOW + life,
        "epoch_ms": (NOW + life) * 1000,
        "jwt": jwt({"exp": NOW + life}),
    }[unit]
    assert lifetime(value, unit) == pytest.approx(life, abs=1e-3)


@pytest.mark.parametrize("unit", ["epoch", "epoch_ms", "iso8601", "jwt"])
@pytest.mark.parametrize("off", [-3600.0, -600.0, 600.0, 3600.0])
def test_this_hosts_clock_does_not_matter_if_the_issuer_sends_its_time(unit: str, off: float) -> None:
    value = {
        "epoch": NOW + 300,
        "epoch_ms": (NOW + 300) * 1000,
        "iso8601": iso(300),
        "jwt": jwt({"exp": NOW + 300}),
    }[unit]
    life = lifetime(value, unit, received=NOW + off)
    assert life is not None
    assert 299.0 <= life <= 300.0  # a Date has whole seconds; the lifetime is never overestimated


def test_a_clock_that_agrees_adds_the_fraction() -> None:
    assert lifetime(NOW + 300, "epoch", received=NOW + 0.75) == pytest.approx(299.25)


@pytest.mark.parametrize(
    "date",
    [
        "",
        "yesterday",
        "Mon, 01 Jan 2024 00:00:00 +99999999999999",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    ],
)
def test_without_a_readable_date_this_hosts_clock_is_used(date: str) -> None:
    assert lifetime(NOW + 300, "epoch", {"date": date}) == 300.0
    assert lifetime(NOW + 300, "epoch", {}) == 300.0


def test_without_a_date_the_lifetime_of_a_jwt_counts_from_its_issue() -> None:
    claims = {"iat": NOW - 7200, "exp": NOW - 7200 + 300}  # this host is two hours ahead
    assert lifetime(jwt(claims), "jwt", {}) == 300.0
    assert lifetime(jwt(claims), "jwt", DATE) is None


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", {"b": [10, {"c": 20}], "0": 30}),
        ("a.b.0", 10),
        ("a.b.1.c", 20),
        ("a.0", 30),
        ("a.b.2", None),
        ("a.b.-1", None),
        ("a.b.\u00b2", None),
        ("a.b.c", None),
        ("a.b.0.x", None),
        ("x", None),
        ("", None),
    ],
)
def test_a_dotted_path_leads_through_objects_and_arrays(path: str, found: object) -> None:
    body = {"a": {"b": [10, {"c": 20}], "0": 30}}
    assert Reply(body, {}, NOW).find(path) == found


@given(JSON, st.text())
def test_any_path_through_any_json_finds_a_value_or_none(value: Any, path: str) -> None:
    find_path(value, path)
