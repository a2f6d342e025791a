"""The outline of a reply shows its structure, and hides its values."""

import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from proxy.recipe.outline import LINES_MAX, outline

CANARY = "canary-token-7f3a"


def test_paths_codes_and_explanations_show_and_the_rest_is_masked() -> None:
    body = {
        "code": 0,
        "msg": "bad signature",
        "data": {"token": CANARY, "list": [CANARY, True, None], "otp": 482913, "sid": "ab", "expire": 300},
        "e": {},
        "l": [],
    }
    assert outline(body).splitlines() == [
        "  code         0",
        '  msg          "bad signature"',
        "  data.token   ******** (17 characters)",
        "  data.list.0  ******** (17 characters)",
        "  data.list.1  true",
        "  data.list.2  null",
        "  data.otp     ******** (a number)",
        "  data.sid     ******** (2 characters)",
        "  data.expire  300",
        "  e            {}",
        "  l            []",
    ]


@pytest.mark.parametrize(
    "name", ["errmsg", "error_description", "message", "msg", "errorMessage", "detail", "ErrorMsg", "retMsg"]
)
def test_the_endpoints_own_message_is_shown(name: str) -> None:
    assert outline({"x": {name: "签名错误 bad signature"}}) == f'  x.{name}  "签名错误 bad signature"'


def test_an_explanation_does_not_show_the_request() -> None:
    shown = outline({"msg": f"secret <hunter2> or {CANARY} is wrong"}, secrets=["hunter2"])
    assert shown == '  msg  "secret <********> or ******** is wrong"'


def test_html_is_named_with_its_title() -> None:
    page = f"<!DOCTYPE html><html><head><title> Sign in to {CANARY} </title></head></html>"
    assert (
        outline(None, page)
        == f'  (text)  an HTML page of {len(page)} characters, titled "Sign in to ********"'
    )


@pytest.mark.parametrize("body", [CANARY, [CANARY], {"a": CANARY}, {CANARY * 3: 1}])
def test_no_long_string_is_shown_in_any_position(body: Any) -> None:
    assert CANARY not in outline(body)


def test_common_words_are_shown() -> None:
    assert "invalid_client" in outline({"error": "invalid_client"})


def test_even_short_secrets_are_not_shown() -> None:
    assert "pw-1" not in outline({"echo": "<pw-1>", "n": 1234}, secrets=["pw-1", "1234"])
    assert "1234" not in outline({"n": 1234}, secrets=["1234"])


def test_only_the_size_of_a_text_is_shown() -> None:
    assert outline(None, CANARY) == "  (text)  ******** (17 characters)"


def test_headers_precede_the_body() -> None:
    assert outline({}, headers={"x-subject-token": CANARY}).startswith("  header x-subject-token  ****")


def test_no_reply_floods_or_tricks_a_terminal() -> None:
    assert len(outline([*range(1000)]).splitlines()) == LINES_MAX + 1
    deep: Any = []
    for _ in range(500):
        deep = {"a": deep}
    assert outline(deep).endswith("{...}")
    assert "\x1b" not in outline({"a\x1b[31m": "b\x1b[2J"})
    assert "\n" not in outline({"a\nb": "c\nd"})


@pytest.mark.parametrize("secret", ["letmein", "a+/ secret?", "\u5bc6\u7801\u5bc6\u7801"])
@pytest.mark.parametrize(
    "encode",
    [
        lambda secret: base64.b64encode(f"ragflow:{secret}".encode()),
        lambda secret: base64.urlsafe_b64encode(f"r:{secret}".encode()).rstrip(b"="),
        lambda secret: base64.b64encode(f"ab{secret}c".encode()),
        lambda secret: quote(secret, safe="").encode(),
    ],
    ids=["basic", "url-safe", "inside", "percent"],
)
def test_an_encoded_secret_is_not_shown(encode: Callable[[str], bytes], secret: str) -> None:
    quoted = encode(secret).decode()
    shown = outline(
        {"message": f"header Basic {quoted} is invalid", quoted: 1, "type": quoted}, secrets=[secret]
    )
    assert "header Basic ***" in shown
    assert quoted not in shown
    assert quoted not in outline(None, f"<html><title>{quoted}</title>", secrets=[secret])
