"""Token, lifetime and success are found in real replies of endpoints, with reasons."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.sources.reply import Reply
from proxy.recipe.expiries import with_offset
from proxy.recipe.reply import Reading, parse_reply, read_reply
from tests.recipe import replies
from tests.recipe.replies import NOW, RANDOM, iso, jwt, reply


def found(reading: Reading) -> tuple[str, str, list[tuple[str, str]]]:
    """Return kind and path of the token, and the certain lifetimes."""
    token = reading.tokens[0]
    return token.kind, token.path, [(life.path, life.unit) for life in reading.expiries]


@pytest.mark.parametrize(
    ("body", "token", "expiry", "lifetime"),
    [
        (replies.BAIDU, "access_token", ("expires_in", "seconds"), 2592000),
        (replies.FEISHU, "tenant_access_token", ("expire", "seconds"), 7200),
        (replies.FEISHU_APP, "tenant_access_token", ("expire", "seconds"), 7200),
        (replies.WECHAT, "access_token", ("expires_in", "seconds"), 7200),
        (replies.WECOM, "access_token", ("expires_in", "seconds"), 7200),
        (replies.IBM, "access_token", ("expires_in", "seconds"), 3600),
        (replies.VAULT, "auth.client_token", ("auth.lease_duration", "seconds"), 2764800),
        (replies.KEYCLOAK, "access_token", ("expires_in", "seconds"), 300),
        (replies.AZURE_V1, "access_token", ("expires_in", "seconds"), 3599),
        (replies.COMPANY, "data.token", ("data.expireTime", "epoch_ms"), 300),
    ],
)
def test_vendors_replies_leave_no_doubt(
    body: Any, token: str, expiry: tuple[str, str], lifetime: float
) -> None:
    reading = read_reply(reply(body))
    assert found(reading)[:2] == ("path", token)
    assert found(reading)[2][0] == expiry
    assert reading.expiries[0].lifetime == pytest.approx(lifetime, abs=1)
    assert not reading.unsure_token
    assert not reading.unsure_expiry
    assert not reading.refused


def test_the_header_token_of_huawei() -> None:
    reading = read_reply(
        reply(replies.HUAWEI, {"x-subject-token": "MIIDkgYJKoZIhvcNAQcCoIIDgzCCA3" + "a1B2" * 20})
    )
    assert found(reading) == ("header", "x-subject-token", [("token.expires_at", "iso8601")])
    assert reading.expiries[0].lifetime == 86400
    assert not reading.unsure_token


@pytest.mark.parametrize(
    ("body", "path", "equals"),
    [
        (replies.FEISHU, "code", 0),
        (replies.WECOM, "errcode", 0),
        (replies.COMPANY, "code", 0),
        ({"success": True, "token": RANDOM}, "success", True),
        ({"status": "OK", "token": RANDOM}, "status", "OK"),
        ({"errno": 0, "data": {"token": RANDOM}}, "errno", 0),
        ({"code": "200", "data": {"token": RANDOM}}, "code", "200"),
        ({"code": 0, "success": True, "token": RANDOM}, "success", True),
    ],
)
def test_the_sign_of_success(body: Any, path: str, equals: object) -> None:
    success = read_reply(reply(body)).success
    assert success is not None
    assert (success.path, success.value) == (path, equals)


@pytest.mark.parametrize(
    "body", [replies.BAIDU, replies.WECHAT, replies.VAULT, {"token": RANDOM, "code": None}]
)
def test_no_sign_of_success_is_invented(body: Any) -> None:
    assert read_reply(reply(body)).success is None


@pytest.mark.parametrize(
    ("name", "value", "unit", "lifetime", "sure"),
    [
        ("expires_in", 300, "seconds", 300, True),
        ("expires_in", "300", "seconds", 300, True),
        ("expires_in", 604800, "seconds", 604800, True),
        ("expires_in", 200000, "seconds", 200000, True),
        ("expiresIn", 300000, "milliseconds", 300, False),
        ("expires_in", 7200000, "milliseconds", 7200, False),
        ("expiresIn", 86400000, "milliseconds", 86400, True),
        ("expiresInMs", 5000, "milliseconds", 5, True),
        ("ttlSeconds", 120000, "seconds", 120000, True),
        ("expires", int(NOW) + 600, "epoch", 600, True),
        ("expireTime", int(NOW + 600) * 1000, "epoch_ms", 600, True),
        ("expiresAt", iso(600), "iso8601", 600, True),
        ("expireTime", "2025-11-24 16:10:00", "iso8601", 600, False),
        ("expiresAt", "2025-11-25T00:10:00+08:00", "iso8601", 600, True),
        ("expires", int(NOW) - 600, "epoch", None, False),
        ("expireTime", int(NOW - 600) * 1000, "epoch_ms", None, False),
        ("expireTime", iso(-600), "iso8601", None, False),
    ],
)
def test_the_unit_is_the_one_that_gives_a_plausible_lifetime(
    *, name: str, value: object, unit: str, lifetime: float | None, sure: bool
) -> None:
    reading = read_reply(reply({"token": RANDOM, "data": {name: value}}))
    life, *doubts = reading.expiries
    assert not doubts or not sure
    assert (life.path, life.unit) == (f"data.{name}", unit)
    assert life.lifetime == (None if lifetime is None else pytest.approx(lifetime, abs=1))
    assert reading.unsure_expiry is not sure
    assert life.why


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": True},
        {"expires_in": "soon"},
        {"expires_in": None},
        {"expires_in": 1e300},
        {"expires_in": 10**400},
        {"expires_in": "9" * 400},
        {"refresh_token_expires_in": 300},
        {"ext_expires_in": 300},
        {"issued_at": int(NOW)},
        {"a.b": 1, "": 2},
    ],
)
def test_other_values_are_not_read_as_a_lifetime(fields: dict[str, object]) -> None:
    assert read_reply(reply({"token": RANDOM, **fields})).expiries == ()


def test_the_claims_of_a_jwt_are_the_last_resort_and_confirm_a_lifetime() -> None:
    alone = read_reply(reply({"data": {"jwt": jwt(300)}}))
    assert found(alone) == ("path", "data.jwt", [("data.jwt", "jwt")])
    assert not alone.unsure_expiry
    agreed = read_reply(reply({"token": jwt(300), "ttl": 300000}))
    assert not agreed.unsure_expiry
    assert "agrees" in agreed.expiries[0].why
    denied = read_reply(reply({"token": jwt(300), "expires_in": 7200}))
    assert found(denied)[2] == [("token", "jwt"), ("expires_in", "seconds")]


def test_the_issuers_hint_is_found() -> None:
    hint = read_reply(reply(replies.AZURE_V1)).refresh_in
    assert hint is not None
    assert hint.path == "refresh_in"


@pytest.mark.parametrize(
    "name", ["refresh_token", "csrfToken", "token_type", "accessor", "user_id", "requestId"]
)
def test_other_values_are_not_read_as_a_token(name: str) -> None:
    assert read_reply(reply({name: RANDOM})).tokens == ()


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({"token": RANDOM, "jwt": jwt()}, ["token", "jwt"]),
        ({"a": {"x": RANDOM}, "b": {"y": RANDOM[::-1]}}, ["a.x", "b.y"]),
        ({"result": [{"v": RANDOM}]}, ["result.0.v"]),
    ],
)
def test_the_user_chooses_between_equally_good_candidates(body: Any, paths: list[str]) -> None:
    reading = read_reply(reply(body))
    assert [finding.path for finding in reading.tokens] == paths
    assert reading.unsure_token


def test_a_bare_text_is_the_token() -> None:
    reading = read_reply(reply(f"{jwt()}\n"))
    assert found(reading)[:2] == ("text", "")
    assert not reading.unsure_token
    assert read_reply(reply("<html>error</html>")).tokens == ()
    assert read_reply(reply("try again later")).tokens == ()


def test_a_refusal_has_no_token() -> None:
    refusal = read_reply(reply({"code": 10401, "message": "wrong", "requestId": RANDOM, "data": None}))
    assert refusal.tokens == ()
    odd = read_reply(reply({"code": 10401, "detail": RANDOM}))
    assert odd.refused
    assert odd.unsure_token


def test_a_saved_reply_with_its_headers() -> None:
    saved = 'HTTP/1.1 100 Continue\r\n\r\nHTTP/2 201 \r\nDate: d\r\nX-Subject-Token: abc\r\n\r\n{"a": 1}\n'
    assert parse_reply(saved, NOW) == Reply(
        {"a": 1}, {"date": "d", "x-subject-token": "abc"}, NOW, '{"a": 1}\n'
    )
    assert parse_reply("\ufeff{}", NOW).body == {}
    assert parse_reply("[" * 100_000, NOW).body is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.just(RANDOM)
    | st.just(jwt()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["token", "expires_in", "exp", "code", "a.b", ""]) | st.text(max_size=5), inner
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_reply_is_read_without_an_error(body: Any) -> None:
    reading = read_reply(Reply(body, {}, NOW, "x"))
    for finding in (*reading.tokens, *reading.expiries):
        assert finding.why
        if finding.kind == "path":
            assert Reply(body, {}, NOW).find(finding.path) is not None


def test_findings_do_not_show_the_token() -> None:
    reading = read_reply(reply(replies.COMPANY))
    token = replies.COMPANY["data"]["token"]  # type: ignore[index]
    assert token not in repr(reading)
    assert token not in repr(reading.tokens)


def token_and_life(text: str) -> tuple[str, dict[str, Any]]:
    """Return the paths of the best token and of its lifetime in a saved reply."""
    reply = parse_reply(text, NOW)
    reading = read_reply(reply)
    lives = [{"path": life.path, "unit": life.unit, "life": life.lifetime} for life in reading.expiries]
    return reading.tokens[0].path, lives[0] if lives else {}


def test_a_reply_in_xml_is_read() -> None:
    text = f"<r><code>0</code><data><token>{RANDOM}</token><expiresIn>300</expiresIn></data></r>"
    assert token_and_life(text) == (
        "r.data.token",
        {"path": "r.data.expiresIn", "unit": "seconds", "life": 300.0},
    )
    success = read_reply(parse_reply(text, NOW)).success
    assert success is not None
    assert (success.path, success.value) == ("r.code", "0")


def test_json_in_a_string_is_read() -> None:
    inside = json.dumps({"token": RANDOM, "expires_in": 300})
    expected = ("data.token", {"path": "data.expires_in", "unit": "seconds", "life": 300.0})
    assert token_and_life(json.dumps({"data": inside})) == expected
    assert token_and_life(json.dumps(inside))[0] == "token"


def test_a_token_in_a_cookie_is_read_with_its_life() -> None:
    text = f"HTTP/1.1 200 OK\r\nSet-Cookie: SESSION_TOKEN={RANDOM}; Max-Age=600; Path=/\r\n\r\n{{}}"
    assert token_and_life(text) == (
        "cookie:SESSION_TOKEN",
        {"path": "cookie:SESSION_TOKEN;max-age", "unit": "seconds", "life": 600.0},
    )


def test_a_life_in_a_header_is_read_and_those_of_http_are_not() -> None:
    text = (
        f'HTTP/1.1 200 OK\nX-Token-TTL: 120\nCache-Control: max-age=9\nExpires: 0\n\n{{"token": "{RANDOM}"}}'
    )
    assert token_and_life(text)[1] == {"path": "header:x-token-ttl", "unit": "seconds", "life": 120.0}


def test_a_local_time_is_marked_and_becomes_a_life_by_an_offset() -> None:
    clock = datetime.fromtimestamp(NOW + 300, timezone(timedelta(hours=8)))
    for written in ("%Y-%m-%d %H:%M:%S", "%Y%m%d%H%M%S", "%Y/%m/%d %H:%M:%S"):
        reply = parse_reply(json.dumps({"token": RANDOM, "expireTime": clock.strftime(written)}), NOW)
        best = read_reply(reply).expiries[0]
        assert best.local
        assert best.confidence < 60
        known = with_offset(reply, best, "+08:00")
        assert (known.unit, known.lifetime, known.local) == ("iso8601+08:00", 300.0, False)
