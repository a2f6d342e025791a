"""Secrets are moved out of the request, other values stay readable, and nothing is lost."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.recipe.curl_line import CurlRequest, parse_curl
from proxy.recipe.draft import Draft, take_secrets_out
from proxy.settings.interpolation import Interpolation, LateText

URL = "https://auth.corp.example/token"
CANARY = "canary-91bc"
RANDOM = "8fJq2LmX0vR7tYbK4nWc9PzD"
UUID = "0315fa9b-9f7e-4e2d-8a2e-2f0f6b0a9a11"


def draft(line: str, name: str = "corp") -> Draft:
    return take_secrets_out(parse_curl(line), name)


def values(of: Draft) -> dict[str, str]:
    return {variable.name: variable.value.reveal() for variable in of.variables if variable.value is not None}


@pytest.mark.parametrize(
    ("options", "part", "expected", "variables"),
    [
        (
            f"""--json '{{"appId": "demo", "appSecret": "{CANARY}"}}'""",
            "json",
            {"appId": "demo", "appSecret": "${env:CORP_APP_SECRET}"},
            {"CORP_APP_SECRET": CANARY},
        ),
        (
            f"""--json '{{"a": {{"methods": ["p"], "u": {{"name": "n", "password": "{CANARY}"}}}}}}'""",
            "json",
            {"a": {"methods": ["p"], "u": {"name": "n", "password": "${env:CORP_PASSWORD}"}}},
            {"CORP_PASSWORD": CANARY},
        ),
        (
            f"-d grant_type=apikey -d apikey={CANARY}",
            "form",
            {"grant_type": "apikey", "apikey": "${env:CORP_APIKEY}"},
            {"CORP_APIKEY": CANARY},
        ),
        (
            f"-H 'X-Api-Key: {CANARY}' -H 'X-Requested-With: ragflow' -H 'X-Unknown: {CANARY}-2'",
            "headers",
            {
                "X-Api-Key": "${env:CORP_X_API_KEY}",
                "X-Requested-With": "ragflow",
                "X-Unknown": "${env:CORP_X_UNKNOWN}",
            },
            {"CORP_X_API_KEY": CANARY, "CORP_X_UNKNOWN": f"{CANARY}-2"},
        ),
        (
            f"-H 'Authorization: Bearer {CANARY}'",
            "headers",
            {"Authorization": "Bearer ${env:CORP_AUTHORIZATION}"},
            {"CORP_AUTHORIZATION": CANARY},
        ),
        (f"-u id:{CANARY}", "basic", ["id", "${env:CORP_PASSWORD}"], {"CORP_PASSWORD": CANARY}),
        (
            f"-G -d appid=id -d sk={CANARY}",
            "query",
            {"appid": "id", "sk": "${env:CORP_SK}"},
            {"CORP_SK": CANARY},
        ),
        (f'--json \'{{"x": "{RANDOM}"}}\'', "json", {"x": "${env:CORP_X}"}, {"CORP_X": RANDOM}),
        (
            "--json '{\"password\": 123456}'",
            "json",
            {"password": "${env:CORP_PASSWORD}"},
            {"CORP_PASSWORD": "123456"},
        ),
        (f"-x http://u:{CANARY}@p:1", "proxy", "${env:CORP_PROXY}", {"CORP_PROXY": f"http://u:{CANARY}@p:1"}),
    ],
)
def test_secrets_become_references_named_after_credential_and_field(
    options: str, part: str, expected: object, variables: dict[str, str]
) -> None:
    taken = draft(f"curl {URL} {options}")
    assert taken.table[part] == expected
    assert values(taken) == variables
    assert CANARY not in repr(taken)


@pytest.mark.parametrize(
    "body",
    [
        {"client_id": RANDOM, "appId": UUID, "tenant": UUID, "scope": "api://llm/.default"},
        {"grant_type": "client_credentials", "token_type": "bearer", "authType": "plain", "keyId": "k1"},
        {"flag": True, "n": 5, "f": 1.5, "scopes": ["a", 1], "secretRequired": True, "empty_token": ""},
    ],
)
def test_other_values_stay_in_the_recipe(body: dict[str, Any]) -> None:
    taken = take_secrets_out(CurlRequest(method="POST", url=URL, query={}, headers={}, json=body), "corp")
    assert taken.table["json"] == body
    assert taken.variables == ()


def test_values_of_a_single_request_are_generated_for_each() -> None:
    taken = draft(
        f"""curl {URL} --json '{{"timestamp": 1764000000123, "ts": 1764000000, "nonce": "{UUID}"}}'"""
    )
    assert taken.table["json"] == {"timestamp": "${now_ms}", "ts": "${now}", "nonce": "${uuid}"}
    assert sum("of the request" in note for note in taken.notes) == 3


def test_a_signed_request_stays_unchanged_with_a_warning() -> None:
    taken = draft(
        f"""curl {URL} --json '{{"timestamp": 1764000000, "sign": "9f86d081884c7d659a2feaa0c55ad015"}}'"""
    )
    assert taken.table["json"]["timestamp"] == 1764000000
    assert taken.table["json"]["sign"] == "${env:CORP_SIGN}"
    assert any("signature" in note for note in taken.notes)


def test_two_secrets_of_one_name_get_two_variables_and_one_secret_gets_one() -> None:
    taken = draft(f"""curl {URL} --json '{{"a": {{"password": "one-1"}}, "b": {{"password": "two-2"}},
        "c": {{"password": "one-1"}}}}' -H 'password: three-3'""")
    assert values(taken) == {
        "CORP_PASSWORD": "three-3",
        "CORP_PASSWORD_JSON": "one-1",
        "CORP_PASSWORD_2": "two-2",
    }


def test_shell_variables_keep_their_names_and_no_secret_takes_them() -> None:
    taken = draft(
        """curl "$BASE/token" -H "password: p-1" --json "{\\"password\\": \\"$CORP_PASSWORD\\"}" """
    )
    assert taken.table["url"] == "${env:BASE}/token"
    assert taken.table["json"] == {"password": "${env:CORP_PASSWORD}"}
    assert taken.table["headers"]["password"] == "${env:CORP_PASSWORD_HEADERS}"
    assert {variable.name for variable in taken.variables if variable.value is None} == {
        "BASE",
        "CORP_PASSWORD",
    }


def test_expiring_tokens_and_cookies_cause_a_warning() -> None:
    taken = draft(
        f"curl {URL} -H 'Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2ln' -b 'session=abc'"
    )
    assert any("${credential:NAME}" in note for note in taken.notes)
    assert any("cookie" in note for note in taken.notes)


def test_a_random_step_of_the_url_is_a_secret() -> None:
    taken = draft(f"curl https://auth.corp.example/hook/{RANDOM}/{UUID}")
    assert taken.table["url"] == f"https://auth.corp.example/hook/${{env:CORP_URL_KEY}}/{UUID}"


@pytest.mark.parametrize("body", ['{"a": null, "b": [1]}', '{"b": [null, 1]}'])
def test_nulls_are_omitted_with_a_note(body: str) -> None:
    taken = draft(f"curl {URL} --json '{body}'")
    assert taken.table["json"] == {"b": [1]}
    assert any("null" in note for note in taken.notes)


def test_a_header_keeps_its_spaces() -> None:
    taken = draft(f"curl {URL} -H 'X-Login: Custom   {CANARY}'")
    assert taken.table["headers"] == {"X-Login": "Custom   ${env:CORP_X_LOGIN}"}


LEAVES = st.text(st.characters(exclude_categories=["Cs", "Co"], exclude_characters="\0")) | st.booleans()
BODIES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["secret", "password", "a", "${env:X}", "key"]) | st.text("ab."), inner
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["secret", "x", "token"]), BODIES))
def test_the_settings_load_the_values_of_the_line(body: dict[str, Any]) -> None:
    taken = take_secrets_out(CurlRequest(method="POST", url=URL, query={}, headers={}, json=body), "corp")
    interpolation = Interpolation(values(taken), Path())
    assert interpolation.tree({"json": taken.table["json"]}, ("credentials", "corp")) == {"json": body}
    assert interpolation.problems == []
    assert not any(isinstance(part, LateText) for part in taken.table.values())
