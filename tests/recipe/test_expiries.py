"""The lifetime in a reply: the unit of a number, and the certainty of that guess."""

from dataclasses import replace

import pytest

from proxy.recipe.expiries import Candidate, path_leaves, span, with_offset
from proxy.recipe.reply import read_reply
from tests.recipe.replies import NOW, RANDOM, iso, jwt, reply


def best(value: object, name: str = "expires_in") -> Candidate:
    """Return the most likely lifetime of a reply with this value."""
    return read_reply(reply({"access_token": RANDOM, name: value})).expiries[0]


@pytest.mark.parametrize(
    ("value", "name", "unit", "lifetime"),
    [
        (7200, "expires_in", "seconds", 7200),
        ("7200", "expires_in", "seconds", 7200),
        (300_000, "expires_in", "milliseconds", 300),
        (86_400_000, "expires_in", "milliseconds", 86_400),
        (604_800, "expires_in", "seconds", 604_800),
        (7200, "expiresInMs", "milliseconds", 7.2),
        (NOW + 600, "expire_time", "epoch", 600),
        ((NOW + 600) * 1000, "expire_time", "epoch_ms", 600),
        (iso(600), "expires_at", "iso8601", 600),
        ("300", "validSeconds", "seconds", 300),
        ((NOW + 600) * 1000, "validTime", "epoch_ms", 600),
    ],
)
def test_the_unit_is_the_one_in_which_a_number_is_a_plausible_lifetime(
    value: object, name: str, unit: str, lifetime: float
) -> None:
    found = best(value, name)
    assert found.unit == unit
    assert found.lifetime == pytest.approx(lifetime)


@pytest.mark.parametrize(
    ("value", "name", "seconds"),
    [
        (60, "expires_in_minutes", 3600),
        ("60", "expireMinutes", 3600),
        (2, "ttlHours", 7200),
        (7, "expire_days", 7 * 86400),
        (30, "token-expires-in-days", 30 * 86400),
    ],
)
def test_a_unit_that_the_settings_do_not_read_is_never_taken_for_seconds(
    value: object, name: str, seconds: int
) -> None:
    text = reply({"access_token": RANDOM, name: value})
    reading = read_reply(text)
    assert [(found.kind, found.unit, found.lifetime) for found in reading.expiries] == [
        ("fixed", "", seconds)
    ]
    assert reading.unsure_expiry
    other = read_reply(reply({"access_token": jwt(seconds), name: value}))
    assert [found.unit for found in other.expiries] == ["jwt", ""]


def test_the_claim_of_a_jwt_confirms_or_contradicts_a_field() -> None:
    def confidence(after: float) -> int:
        return read_reply(reply({"access_token": jwt(after), "expires_in": 300})).expiries[0].confidence

    assert confidence(300) >= 90
    assert confidence(7200) < 90


def test_a_local_time_gets_its_offset_from_the_user() -> None:
    text = reply({"access_token": RANDOM, "expireTime": "2025-11-25 00:10:00"})
    found = read_reply(text).expiries[0]
    assert found.local
    beijing = with_offset(text, found, "+08:00")
    assert (beijing.lifetime, beijing.unit, beijing.local) == (600, "iso8601+08:00", False)
    assert beijing.agrees_with(replace(beijing, lifetime=610.0))
    assert not beijing.agrees_with(replace(beijing, lifetime=7200.0))


def test_paths_name_members_and_items() -> None:
    assert [*path_leaves({"a": {"b": [1, {"c": 2}]}, "d.e": 3})] == [("a.b.0", "b", 1), ("a.b.1.c", "c", 2)]


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (300, "5 min"), (7200, "2 h"), (30 * 86400, "30 days")]
)
def test_durations_are_written_in_the_largest_fitting_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text
