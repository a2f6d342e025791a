"""Requests that were copied for Windows equal those for a shell."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.recipe.curl_line import parse_curl
from proxy.recipe.shell_words import ComputedLine, CurlLineError, windows_words

URL = "https://auth.corp.example/token"
CMD = f"""curl ^"{URL}^" ^
  -H ^"content-type: application/json^" ^
  --data-raw ^"^{{^\\^"appId^\\^":^\\^"demo^\\^",^\\^"pw^\\^":^\\^"a^%b^\\^"^}}^" """
CMD_PLAIN = (
    f'curl "{URL}" ^\r\n -H "content-type: application/json" ^\r\n '
    '-d "{\\"appId\\":\\"demo\\",\\"pw\\":\\"a%b\\"}"'
)
POWERSHELL = f"""curl.exe '{URL}' `
  -H 'content-type: application/json' `
  -d '{{\\"appId\\":\\"demo\\",\\"pw\\":\\"a%b\\"}}'"""
POWERSHELL_LINE = POWERSHELL.replace("`\n ", "")
INVOKE = f"""$session = New-Object Microsoft.PowerShell.Commands.WebRequestSession
Invoke-WebRequest -UseBasicParsing -Uri "{URL}" `
-Method "POST" `
-WebSession $session `
-Headers @{{
"x-requested-with"="XMLHttpRequest"
  "content-type"="application/json"
}} `
-ContentType "application/json" `
-Body "{{`"appId`":`"demo`",`"pw`":`"a%b`"}}\""""
REST = f"""Invoke-RestMethod -Method Post -Uri '{URL}' -ContentType 'application/json' -Body (@{{
  appId = 'demo'; pw = "a%b" }} | ConvertTo-Json)"""
REST_FORM = f"irm {URL} -Method Post -Body @{{ appId = 'demo'; pw = 'a%b' }}"


@pytest.mark.parametrize(
    "line",
    [CMD, CMD_PLAIN, POWERSHELL, POWERSHELL_LINE, INVOKE, REST],
    ids=["cmd", "cmd plain", "powershell", "powershell in one line", "invoke", "rest"],
)
def test_a_copy_for_windows_is_the_same_request(line: str) -> None:
    request = parse_curl(line)
    assert (request.method, request.url) == ("POST", URL)
    assert request.json == {"appId": "demo", "pw": "a%b"}


def test_a_table_as_body_is_a_form() -> None:
    assert parse_curl(REST_FORM).form == {"appId": "demo", "pw": "a%b"}


def test_headers_of_a_table_are_kept() -> None:
    assert parse_curl(INVOKE).headers == {"x-requested-with": "XMLHttpRequest"}


def test_variables_stay_references() -> None:
    line = f'Invoke-RestMethod {URL} -Method Post -Headers @{{ "X-Key" = "$env:CORP_KEY" }}'
    assert parse_curl(line).headers == {"X-Key": "\ue000CORP_KEY\ue001"}


def test_computed_values_of_powershell_are_rejected() -> None:
    with pytest.raises(ComputedLine):
        parse_curl(f'irm {URL} -Method Post -Body "sign=$(Get-Sign)"')


@pytest.mark.parametrize(
    "line",
    [
        f"curl {URL} -d 'a=^b'",
        f"curl {URL} -H 'x: `'",
        'curl "https://a/?x=^"',
        f"""curl {URL} -d '{{"a": "\\"b"}}'""",
        f"""curl {URL} -d "{{\\"a\\": 1}}" """,
    ],
)
def test_a_line_for_a_shell_does_not_change(line: str) -> None:
    assert windows_words(line) is None


@given(st.text(st.sampled_from("irm curl ^`\"'@{}=;\n$()\\-abU ") | st.characters(exclude_categories=["Cs"])))
def test_arbitrary_text_is_read_or_rejected_with_one_error(text: str) -> None:
    found: Any = None
    with contextlib.suppress(CurlLineError):
        found = windows_words(f"irm {text}")
    assert found is None or all(isinstance(word, str) for word in found)
