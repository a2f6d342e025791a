"""Replies with an unusable token: already expired, empty, or with a lifetime by an unknown clock."""

from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import pytest

from proxy.cloud_sdks.outcome import SdkToken
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.cloud import checked_token
from proxy.credentials.sources.http import HttpTokenSource
from proxy.credentials.sources.local import as_token
from proxy.credentials.sources.reply import TOKEN_BYTES_MAX, Reply, is_certain
from proxy.credentials.token import with_deadlines
from tests.credentials.fakes import lowest
from tests.credentials.sources.test_reply_lifetime import jwt
from tests.credentials.sources.token_endpoint import recipe_of

NOW = 1_700_000_000.0


@pytest.fixture
async def source() -> AsyncIterator[HttpTokenSource]:
    """Yield a source that reads the lifetime at `life`."""
    source = HttpTokenSource(recipe_of(url="http://127.0.0.1:1/t", token="t", expires=(("life", "seconds"),)))
    yield source
    await source.close()


def reply(body: Any, *, dated: bool = True) -> Reply:
    """Return a reply that was received now."""
    return Reply(body, {"date": formatdate(NOW, usegmt=True)} if dated else {}, NOW)


@pytest.mark.parametrize("life", [0, -1, "0", "-300", -0.5, "-1.5"])
def test_a_life_that_is_not_positive_is_a_failed_fetch(source: HttpTokenSource, life: Any) -> None:
    with pytest.raises(TokenFetchError, match=r"has expired .*\"life\" as seconds") as caught:
        source.read(reply({"t": "token", "life": life}))
    assert caught.value.has_reply


@pytest.mark.parametrize(
    ("unit", "life"),
    [
        ("epoch", NOW - 1),
        ("epoch_ms", (NOW - 60) * 1000),
        ("iso8601", "2020-01-01T00:00:00Z"),
        ("epoch", 300),  # seconds, by mistake
        ("jwt", jwt({"exp": NOW - 5})),
    ],
)
async def test_an_end_in_the_past_is_a_failed_fetch(unit: str, life: Any) -> None:
    source = HttpTokenSource(recipe_of(url="http://127.0.0.1:1/t", token="t", expires=(("life", unit),)))
    with pytest.raises(TokenFetchError, match="has expired"):
        source.read(reply({"t": "token", "life": life}))
    await source.close()


async def test_the_first_readable_lifetime_is_used() -> None:
    expires = (("missing", "seconds"), ("soon", "seconds"), ("life", "seconds"), ("other", "seconds"))
    source = HttpTokenSource(recipe_of(url="http://127.0.0.1:1/t", token="t", expires=expires))
    assert source.read(reply({"t": "t1", "soon": "soon", "life": 60, "other": 0})).lifetime == 60
    with pytest.raises(TokenFetchError, match="has expired"):
        source.read(reply({"t": "t1", "soon": "soon", "life": 0, "other": 60}))
    await source.close()


@pytest.mark.parametrize(
    "token", ["", " ", "   ", " token", "token ", "to\tken", "to\nken", "x" * (TOKEN_BYTES_MAX + 1)]
)
def test_blank_and_oversized_values_are_not_tokens(source: HttpTokenSource, token: str) -> None:
    with pytest.raises(TokenFetchError):
        source.read(reply({"t": token, "life": 300}))
    with pytest.raises(TokenFetchError):
        as_token(token, "the file")
    with pytest.raises(TokenFetchError):
        checked_token(SdkToken(token, 300.0))


def test_a_long_token_with_a_space_inside_is_one(source: HttpTokenSource) -> None:
    token = "x" * 20 + " " + "y" * (TOKEN_BYTES_MAX - 21)
    assert source.read(reply({"t": token, "life": 300})).secret.reveal() == token


@pytest.mark.parametrize(
    ("unit", "value", "dated", "certain"),
    [
        ("seconds", 300, False, True),
        ("milliseconds", 300_000, False, True),
        ("epoch", NOW + 300, True, True),
        ("epoch", NOW + 300, False, False),
        ("epoch_ms", (NOW + 300) * 1000, False, False),
        ("iso8601", formatdate(NOW + 300, usegmt=True), False, False),
        ("jwt", jwt({"exp": NOW + 300}), False, False),
        ("jwt", jwt({"exp": NOW + 300, "iat": NOW}), False, True),
        ("epoch", None, False, True),  # it is not used
    ],
)
async def test_an_end_by_our_own_clock_leaves_a_margin(
    unit: str, value: Any, *, dated: bool, certain: bool
) -> None:
    assert is_certain([("life", unit)], reply({"life": value}, dated=dated), "t", 1e6) is certain
    source = HttpTokenSource(recipe_of(url="http://127.0.0.1:1/t", token="t", expires=(("life", unit),)))
    fetched = source.read(reply({"t": "token", "life": value}, dated=dated))
    minted = with_deadlines(fetched, generation=1, obtained=0.0, uniform=lowest)
    assert fetched.lifetime - minted.expires_at == pytest.approx(10.0 if certain else 30.0, abs=0.2)
    await source.close()
