"""Only values that are known to be harmless are shown."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.secret import MASK
from proxy.secret_detection import (
    is_harmless,
    is_harmless_reply,
    is_random,
    is_secret_header,
    mask_explanation,
)

RANDOM = "bX9k2Lq0Zt7Rw4Vn8Yc3"
UUID = "7f3f0f6e-0b3a-4a57-9d1b-1c2d3e4f5a6b"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2ln"


@pytest.mark.parametrize(
    "name",
    [
        *("password", "passcode", "otp", "sid", "pin", "PIN", "code", "captcha", "session_id", "sessionId"),
        *("x-plain", "X-Api-Key", "sig", "ticket", "授权码", "密码", "mot_de_passe", "kennwort", "", "data"),
        *("refresh_token", "cred", "pw", "answer", "device", "nonce", "state", "message", "appKey", "bearer"),
    ],
)  # fmt: skip
def test_the_value_of_an_unknown_name_is_hidden(name: str) -> None:
    for value in ("hunter2", "1234", 1234, 0.5, RANDOM, "\x1b[31m"):
        assert not is_harmless(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("grant_type", "client_credentials"),
        ("grantType", "password"),
        ("client_id", RANDOM),
        ("appId", UUID),
        ("scope", "api://llm/.default"),
        ("Content-Type", "application/json"),
        ("token_type", "Bearer"),
        ("User-Agent", "PostmanRuntime/7.36.0"),
        ("Origin", "https://login.corp.example"),
        ("expires_in", 7200),
        ("expireTime", "1764000000123"),
        ("expires_at", "2026-11-26T10:00:00+08:00"),
        ("timestamp", 1764000000),
        ("anything", None),
        ("anything", True),
        ("anything", ""),
    ],
)
def test_known_harmless_values_are_shown(name: str, value: object) -> None:
    assert is_harmless(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("scope", JWT), ("client_id", JWT), ("expires_in", "hunter2"), ("method", RANDOM)],
)
def test_a_harmless_name_does_not_make_a_secret_harmless(name: str, value: str) -> None:
    assert not is_harmless(name, value)


def test_a_code_is_a_password_in_a_request_and_an_answer_in_a_reply() -> None:
    for value in (0, 4003, "4003", "E4003", "success", "invalid_client"):
        assert is_harmless_reply("errcode", value)
    for value in ("hunter2", "482 913", RANDOM):
        assert not is_harmless_reply("code", value)
    assert not is_harmless("code", "482913")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bad signature", "bad signature"),
        ("签名错误,请检查 appSecret", "签名错误,请检查 appSecret"),
        ("AADSTS7000215: Invalid client secret provided.", "AADSTS7000215: Invalid client secret provided."),
        ("AppSecretNotMatch", "AppSecretNotMatch"),
        (f"token {RANDOM} is not known", f"token {MASK} is not known"),
        (f"refused: {JWT}.", f"refused: {MASK}."),
        ("canary-token-7f3a", MASK),
        ("sent hunter2 here", f"sent {MASK} here"),
        ("a\x1b[2Jb\nc", "a\x1b[2Jb c"),
        ("x " * 400, "x " * 149 + "x ..."),
    ],
)
def test_an_explanation_is_shown_without_possible_secrets(text: str, shown: str) -> None:
    assert mask_explanation(text, ["hunter2", "no"]) == shown


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_secret_that_was_sent_shows(before: str, after: str) -> None:
    assert "hunter2!" not in mask_explanation(f"{before} hunter2! {after}", ["hunter2!"])


@given(st.text(max_size=30), st.integers() | st.text() | st.none() | st.booleans())
def test_every_value_is_judged(name: str, value: object) -> None:
    assert is_harmless(name, value) in {True, False}
    json.dumps(value)


@pytest.mark.parametrize(
    ("text", "random"),
    [
        (RANDOM, True),
        ("9f86d081884c7d659a2feaa0c55ad015", True),
        ("llm-token-proxy-2026", False),
        ("https://auth.corp.example/abc123def456", False),
        (UUID, False),
        ("2025-11-24T16:10:00Z", False),
        ("short1A", False),
        ("0000000000000000000000", False),
    ],
)
def test_random_texts_are_recognised(text: str, *, random: bool) -> None:
    assert is_random(text) is random


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Api-Key", "key-0123456789"),
        ("x-apikey", "plain-words-only"),
        ("Cookie", "sid=1; theme=dark"),
        ("Authorization", "Basic dXNlcjpwYXNz"),
        ("X-Gateway-Password", "correct horse"),
        ("X-Auth-Token-2", "a secret of words"),
        ("X-Auth-Mode", "sk-4f9a8b7c6d5e4f3a2b1c"),
        ("X-Custom", "Bearer 4f9a8b7c6d5e4f3a2b1c"),
        ("X-Custom", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl"),
        ("X-Secret-Id", "5f3c9a7b-1d2e-4f60-8a9b-0c1d2e3f4a5b"),
        ("Token-Id", "0a1b2c3d4e5f60718293"),
    ],
)
def test_a_fixed_header_with_a_secret_is_recognised_by_its_name_or_its_value(name: str, value: str) -> None:
    assert is_secret_header(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-auth-mode", "standard"),
        ("x-token-version", "2024-06-01-preview"),
        ("X-Auth-Type", "managed-identity"),
        ("X-Api-Key-Id", "4f9a8b7c6d5e4f3a2b1c"),
        ("X-Use-Token", "true"),
        ("X-Author", "platform team"),
        ("anthropic-beta", "prompt-caching-2024-07-31"),
        ("HTTP-Referer", "https://git.corp.example/org/repo2024x"),
        ("User-Agent", "gateway/1.2.3 (team 42)"),
        ("X-Team", "InternalGatewayServiceProduction"),
        ("X-Trace", "9f3b2c1d-1111-2222-3333-444455556666"),
        ("!", ""),
    ],
)
def test_other_fixed_headers_are_no_secrets(name: str, value: str) -> None:
    assert not is_secret_header(name, value)
