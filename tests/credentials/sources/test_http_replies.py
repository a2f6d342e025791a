"""Replies of token endpoints: the fields that are read, and the errors for invalid replies."""

import time
from email.utils import formatdate

import jwt
import pytest
from structlog.typing import EventDict

from tests.credentials.sources.token_endpoint import TokenEndpoint, failure_of, fetch, recipe_of
from tests.pace import PATIENCE
from tests.raw_upstream import Conversation, raw_upstream

IN_A_WHILE = 1000.0


async def test_the_token_and_its_lifetime_are_found_at_any_path(endpoint: TokenEndpoint) -> None:
    endpoint.says({"code": 0, "data": {"tokens": [{"value": "t-0"}, {"value": "t-1"}], "ms": "120000"}})
    fetched = await fetch(
        recipe_of(
            url=endpoint.url,
            success=("code", 0),
            token="data.tokens.1.value",
            expires=(("data.expiresAt", "epoch"), ("data.ms", "milliseconds")),
        )
    )
    assert (fetched.secret.reveal(), fetched.lifetime, fetched.refresh_in) == ("t-1", 120.0, None)


async def test_the_token_may_be_a_header(endpoint: TokenEndpoint) -> None:
    endpoint.status, endpoint.headers["X-Subject-Token"] = 201, "t-1"
    endpoint.says({"token": {"expires_at": "2099-01-01T00:00:00Z"}})
    fetched = await fetch(
        recipe_of(
            url=endpoint.url,
            token=None,
            token_header="x-subject-token",
            expires=(("token.expires_at", "iso8601"),),
            max_ttl=1e12,
        )
    )
    assert fetched.secret.reveal() == "t-1"
    assert fetched.lifetime > 1e9


async def test_a_token_in_a_header_may_contain_its_expiry(endpoint: TokenEndpoint) -> None:
    token = jwt.encode({"exp": int(time.time()) + 600}, "k" * 32, algorithm="HS256")
    endpoint.headers["X-Subject-Token"] = token
    fetched = await fetch(
        recipe_of(url=endpoint.url, token=None, token_header="X-Subject-Token", expires=(("", "jwt"),))
    )
    assert fetched.lifetime == pytest.approx(600, abs=2)


async def test_a_header_needs_no_body(endpoint: TokenEndpoint) -> None:
    endpoint.body, endpoint.headers["X-Subject-Token"] = b"", "t-1"
    fetched = await fetch(recipe_of(url=endpoint.url, token=None, token_header="X-Subject-Token"))
    assert (fetched.secret.reveal(), fetched.lifetime) == ("t-1", 300.0)


async def test_the_issuers_hint_is_read(endpoint: TokenEndpoint) -> None:
    endpoint.says({"access_token": "t", "expires_in": 86400, "refresh_in": 43200})
    fetched = await fetch(
        recipe_of(url=endpoint.url, expires=(("expires_in", "seconds"),), refresh_in="refresh_in")
    )
    assert (fetched.lifetime, fetched.refresh_in) == (86400.0, 43200.0)


@pytest.mark.parametrize(
    ("expires", "said", "life", "lifetime"),
    [
        ((("expires_in", "seconds"),), {}, 60.0, 60.0),
        ((("expires_in", "seconds"),), {}, 3600.0, 3600.0),
        ((("expires_in", "seconds"),), {"expires_in": 120}, 60.0, 120.0),  # what the issuer says comes first
        ((("expires_in", "seconds"),), {}, -60.0, 300.0),
        ((), {}, 60.0, 60.0),
        ((), {}, 3600.0, 300.0),  # default_ttl may be the lifetime of a session
    ],
)
async def test_the_expiry_of_a_jwt_is_used_if_the_reply_has_no_other(
    endpoint: TokenEndpoint,
    lines: list[EventDict],
    expires: tuple[tuple[str, str], ...],
    said: dict[str, int],
    life: float,
    lifetime: float,
) -> None:
    endpoint.says({"access_token": jwt.encode({"exp": time.time() + life}, "k" * 32), **said})
    fetched = await fetch(recipe_of(url=endpoint.url, expires=expires, default_ttl=300.0))
    assert fetched.lifetime == pytest.approx(lifetime, abs=5.0)
    assert bool(lines) is (life < 0)


async def test_an_unreadable_lifetime_is_logged_and_replaced_by_the_default(
    endpoint: TokenEndpoint, lines: list[EventDict]
) -> None:
    endpoint.says({"access_token": "s3cret", "expires_in": "s3cret"})
    recipe = recipe_of(url=endpoint.url, expires=(("expires_in", "seconds"),), default_ttl=60.0)
    assert (await fetch(recipe)).lifetime == 60.0
    assert [line["event"] for line in lines] == ["token_lifetime_unreadable"]
    assert "s3cret" not in repr(lines)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>s3cret</html>",
        b"",
        b"null",
        b"[]",
        b'"s3cret"',
        b'{"error": "s3cret"}',
        b'{"access_token": null, "other": "s3cret"}',
        b'{"access_token": ""}',
        b'{"access_token": 17}',
        b'{"access_token": true}',
        b'{"access_token": {"s3cret": "s3cret"}}',
        b'{"access_token": ["s3cret"]}',
        b'{"access_token": "s3cret\\r\\nX-Injected: 1"}',
        b'{"access_token": "s3cret\\u0000"}',
        '{"access_token": "s3crét"}'.encode(),
        b"\xff\xfes3cret",
        b"[" * 100_000,
        b'{"access_token": "s3cret", "expires_in": ' + b"9" * 5000 + b"}",
    ],
)
async def test_a_200_without_a_token_is_a_temporary_failure(endpoint: TokenEndpoint, body: bytes) -> None:
    endpoint.body = body
    error = await failure_of(recipe_of(url=endpoint.url))
    assert f"{endpoint.url} has no token at 'access_token': " in error.reason
    assert "s3cret" not in error.reason
    assert (error.permanent, error.retry_after) == (False, None)


async def test_a_reply_without_the_header_has_no_token(endpoint: TokenEndpoint) -> None:
    error = await failure_of(recipe_of(url=endpoint.url, token=None, token_header="X-Subject-Token"))
    assert "has no token at 'X-Subject-Token'" in error.reason


@pytest.mark.parametrize(
    ("equals", "said", "good"),
    [
        (0, 0, True),
        (0, 1, False),
        (0, "0", False),
        (0, None, False),
        ("ok", "ok", True),
        ("ok", "s3cret", False),
        (True, True, True),
        (True, False, False),
    ],
)
async def test_the_sign_of_success_decides(
    endpoint: TokenEndpoint, *, equals: object, said: object, good: bool
) -> None:
    endpoint.says({"result": {"code": said}, "access_token": "t"})
    recipe = recipe_of(url=endpoint.url, success=("result.code", equals))
    if good:
        assert (await fetch(recipe)).secret.reveal() == "t"
    else:
        error = await failure_of(recipe)
        assert "signals no success at 'result.code': " in error.reason
        assert "s3cret" not in error.reason
        assert not error.permanent


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_refusal_is_permanent_whatever_its_body(endpoint: TokenEndpoint, status: int) -> None:
    endpoint.status = status
    endpoint.says({"access_token": "s3cret", "error": "s3cret"})
    error = await failure_of(recipe_of(url=endpoint.url))
    assert error.reason.startswith(f"the token endpoint {endpoint.url} answered {status}")
    assert (error.permanent, error.retry_after) == (True, None)


@pytest.mark.parametrize(
    ("status", "error", "permanent"),
    [
        (400, None, False),
        (403, None, False),
        (403, "rate limited", False),
        (400, "temporarily_unavailable", False),
        (400, "invalid_client", True),
        (403, "access_denied", True),
        (401, None, True),
    ],
)
async def test_a_refusal_that_asks_for_another_attempt_is_temporary_unless_the_client_is_at_fault(
    endpoint: TokenEndpoint, status: int, error: str | None, *, permanent: bool
) -> None:
    endpoint.status, endpoint.headers["Retry-After"] = status, "5"
    endpoint.says({} if error is None else {"error": error})
    failure = await failure_of(recipe_of(url=endpoint.url))
    assert (failure.permanent, failure.retry_after) == (permanent, None if permanent else 5.0)


@pytest.mark.parametrize("ahead", [-600.0, 0.0, 600.0])
async def test_the_date_until_which_the_endpoint_asks_to_wait_is_by_its_own_clock(
    endpoint: TokenEndpoint, ahead: float
) -> None:
    now = time.time() + ahead
    endpoint.status = 429
    endpoint.headers |= {
        name: formatdate(at, usegmt=True) for name, at in (("Date", now), ("Retry-After", now + 60))
    }
    seconds = (await failure_of(recipe_of(url=endpoint.url))).retry_after
    assert seconds is not None
    assert 60 - PATIENCE < seconds <= 60


@pytest.mark.parametrize("status", [404, 405, 408, 422, 425, 429, 500, 502, 503, 504])
async def test_a_failing_endpoint_is_a_temporary_failure(endpoint: TokenEndpoint, status: int) -> None:
    endpoint.status = status
    error = await failure_of(recipe_of(url=endpoint.url))
    assert error.reason.startswith(f"the token endpoint {endpoint.url} answered {status}")
    assert (error.permanent, error.retry_after) == (False, None)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("9" * 400, float("inf")),
        ("-7", None),
        ("7.5", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_endpoint_may_send_retry_after(
    endpoint: TokenEndpoint, status: int, header: str, seconds: float | None
) -> None:
    endpoint.status, endpoint.headers["Retry-After"] = status, header
    assert (await failure_of(recipe_of(url=endpoint.url))).retry_after == seconds


async def test_retry_after_may_be_a_date(endpoint: TokenEndpoint) -> None:
    endpoint.status = 503
    endpoint.headers["Retry-After"] = formatdate(time.time() + 60.0, usegmt=True)
    retry_after = (await failure_of(recipe_of(url=endpoint.url))).retry_after
    assert retry_after is not None
    assert 50.0 < retry_after <= 60.0


@pytest.mark.parametrize("offset", [-3600.0, 0.0, 3600.0])
async def test_an_expiry_is_measured_by_the_date_of_the_issuer(offset: float) -> None:
    async def answer(conversation: Conversation) -> None:
        there = time.time() + offset
        body = b'{"access_token": "t", "at": %d}' % (there + IN_A_WHILE)
        await conversation.answer(body, f"Date: {formatdate(there, usegmt=True)}")

    async with raw_upstream(answer) as issuer:
        fetched = await fetch(recipe_of(url=issuer.url, expires=(("at", "epoch"),)))
    assert fetched.lifetime == pytest.approx(IN_A_WHILE, abs=2.5)


@pytest.mark.parametrize(
    "headers", [[], ["Date: yesterday"], ["Date: Mon, 01 Jan 2024 00:00:00 +99999999999999"]]
)
async def test_without_a_readable_date_our_own_clock_is_used(headers: list[str]) -> None:
    async def answer(conversation: Conversation) -> None:
        await conversation.answer(b'{"access_token": "t", "at": %d}' % (time.time() + IN_A_WHILE), *headers)

    async with raw_upstream(answer) as issuer:
        fetched = await fetch(recipe_of(url=issuer.url, expires=(("at", "epoch"),)))
    assert fetched.lifetime == pytest.approx(IN_A_WHILE, abs=2.5)
