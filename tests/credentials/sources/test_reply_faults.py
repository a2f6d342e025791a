"""The message about an invalid reply names the place, the cause and the cure, and quotes nothing."""

import json
from typing import Any

import pytest

from proxy.credentials.sources.reply import Reply, duration
from proxy.credentials.sources.reply_faults import (
    doubt_lifetime,
    is_html,
    status_fault,
    success_fault,
    token_fault,
)
from tests.credentials.sources.test_reply_lifetime import jwt

NOW = 1_800_000_000.0
CANARY = "canary-9a4e"
MONTH = 31 * 86400.0


def reply(body: Any = None, text: str = "", status: int = 200, **headers: str) -> Reply:
    """Return a reply as it was received."""
    text = text or ("" if body is None else json.dumps(body))
    return Reply(body, {name.replace("_", "-"): value for name, value in headers.items()}, NOW, text, status)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, {"error": "invalid_client"}, "answered 400 (invalid_client); it refuses the request"),
        (401, {"error": CANARY}, "answered 401; it refuses the request: check the id, the secret"),
        (403, None, "address is allowed"),
        (404, None, "check the path"),
        (405, None, "check the method"),
        (407, None, "proxy"),
        (415, None, "json or form"),
        (429, None, "too many requests"),
        (499, None, "answered 499; it refuses the request"),
        (302, None, "set the final URL"),
        (500, None, "the endpoint has failed"),
        (999, None, "the endpoint has failed"),
    ],
)
def test_each_status_is_explained(status: int, body: Any, words: str) -> None:
    said = status_fault(reply(body, status=status))
    assert words in said
    assert f"answered {status}" in said
    assert CANARY not in said


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"ret": 4003}, "signals no success at 'ret': it is 4003, but 0 is expected"),
        ({"ret": "4003"}, "it is 4003, but 0 is expected"),
        ({"ret": True}, "it is True, but 0 is expected"),
        ({"ret": CANARY}, "it has another value, but 0 is expected"),
        ({"other": 1}, "it is missing, but 0 is expected"),
    ],
)
def test_a_missing_sign_of_success_is_explained(body: Any, words: str) -> None:
    said = success_fault(reply(body), "ret", 0)
    assert words in said
    assert CANARY not in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        (f"<!DOCTYPE html><title>{CANARY}</title>", "an HTML page"),
        (f"\n<!-- {CANARY} --><html lang='zh'>", "an HTML page"),
        (f"<?xml version='1.0'?><token>{CANARY}</token>", "it is XML"),
        (CANARY, "it is not JSON"),
        (f'{{"message": "\ufffd", "t": "{CANARY}"}}', "it is not UTF-8"),
    ],
)
def test_replies_that_are_not_json(text: str, words: str) -> None:
    for said in (success_fault(reply(text=text), "ret", 0), token_fault(reply(text=text), "t", in_body=True)):
        assert words in said
        assert CANARY not in said
    assert is_html(reply(text=text)) == ("HTML" in words)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"code": 40001, "msg": CANARY, "data": None},
            "the reply looks like an error (code is 40001): check the id",
        ),
        ({"errcode": "40013"}, "an error (errcode is 40013)"),
        ({"msg": CANARY}, "an error (it has msg)"),
        ({"error": {"message": CANARY}}, "an error (it has error)"),
        ({"code": 0, "msg": CANARY}, "check the path"),
        ({"code": "200", "msg": "ok"}, "check the path"),
        ({"code": True, "success": True}, "check the path"),
        ({"msg": CANARY, "result": {"token": CANARY}}, "check the path"),
        ({"code": 40001, "data": {"token": ""}}, "check the path"),
        ([], "check the path"),
    ],
)
def test_a_reply_with_an_error_instead_of_a_token_is_named(body: Any, words: str) -> None:
    said = token_fault(reply(body), "data.token", in_body=True)
    assert words in said
    assert said.endswith("; `token NAME` shows the reply")
    assert CANARY not in said


def test_html_is_recognised_by_its_media_type() -> None:
    assert is_html(reply(text="<p>Sign in</p>", content_type="text/html; charset=utf-8"))
    assert not is_html(reply({"a": 1}, content_type="text/html"))


@pytest.mark.parametrize(
    ("candidates", "body", "words"),
    [
        ([("d.x", "epoch_ms")], {"d": {}}, 'expires at "d.x" as epoch_ms: the reply has no such value'),
        (
            [("x", "seconds")],
            {"x": CANARY},
            'expires at "x" as seconds: the value cannot be read in this unit',
        ),
        ([("x", "seconds")], {"x": 0}, "not above 0"),
        ([("x", "epoch")], {"x": NOW - 5}, "in the past"),
        ([("x", "epoch")], {"x": 300}, 'in the past; as = "seconds" would make it 5 min'),
        ([("x", "seconds")], {"x": NOW + 300}, 'more than max_ttl = 31 d; as = "epoch" would make it 5 min'),
        ([("x", "epoch")], {"x": (NOW + 300) * 1000}, 'as = "epoch_ms" would make it 5 min'),
        ([("x", "epoch_ms")], {"x": NOW + 300}, 'in the past; as = "epoch" would make it 5 min'),
        ([("a", "seconds"), ("b", "epoch")], {}, 'has no such value; expires at "b" as epoch: the reply has'),
        ([("", "jwt")], {}, "not a JWT with an exp claim"),
        ([("x", "jwt")], {"x": jwt({"exp": 1e308, "iat": -1e308})}, "cannot be read in this unit"),
    ],
)  # fmt: skip
def test_an_unreadable_lifetime(candidates: list[tuple[str, str]], body: Any, words: str) -> None:
    doubt = doubt_lifetime(candidates, reply(body), "opaque", default_ttl=77.0, max_ttl=MONTH)
    assert doubt is not None
    assert (doubt.readable, doubt.event) == (False, "token_lifetime_unreadable")
    assert words in doubt.reason
    assert doubt.reason.endswith("1 min 17 s is assumed (default_ttl)")
    assert CANARY not in doubt.reason


@pytest.mark.parametrize(
    ("unit", "value", "words"),
    [
        ("seconds", 300_000, '3 d 11 h, more than 24 h; as = "milliseconds" would make it 5 min'),
        ("seconds", 7_200_000 // 4, '20 d 20 h, more than 24 h; as = "milliseconds" would make it 30 min'),
        ("milliseconds", 3600, '3.6 s, which is short; as = "seconds" would make it 1 h'),
        ("epoch", NOW + 3 * 86400, "3 d, more than 24 h: check that this is right"),
        ("seconds", 2_000_000, '23 d 3 h, more than 24 h; as = "milliseconds" would make it 33 min 20 s'),
    ],
)
def test_a_life_in_a_unit_that_looks_wrong(unit: str, value: float, words: str) -> None:
    doubt = doubt_lifetime([("d.x", unit)], reply({"d": {"x": value}}), "t", default_ttl=1, max_ttl=MONTH)
    assert doubt is not None
    assert (doubt.readable, doubt.event) == (True, "token_lifetime_doubtful")
    assert doubt.reason == f'expires at "d.x" as {unit} is {words}'


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("seconds", 300),
        ("seconds", 86400),
        ("seconds", 3),
        ("milliseconds", 300_000),
        ("epoch", NOW + 7200),
        ("epoch_ms", (NOW + 300) * 1000),
    ],
)
def test_usual_lives_raise_no_doubt(unit: str, value: float) -> None:
    assert doubt_lifetime([("x", unit)], reply({"x": value}), "t", default_ttl=1, max_ttl=MONTH) is None


def test_without_candidates_there_is_nothing_to_doubt() -> None:
    assert doubt_lifetime([], reply({}), "t", default_ttl=1, max_ttl=MONTH) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.25 s"),
        (59.6, "1 min"),
        (290, "4 min 50 s"),
        (7200, "2 h"),
        (90061, "1 d 1 h"),
        (2592000, "30 d"),
    ],
)
def test_a_duration_is_written_in_suitable_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
