"""Requests that were copied for Windows equal those for a shell."""

import contextlib
import json
import re
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.recipe.curl_line import parse_curl
from proxy.recipe.shell_words import ComputedLine, CurlLineError
from proxy.recipe.windows_words import windows_words

VALUE = st.text(
    st.sampled_from("ab \n'\"`$@{}();|&<>,#=%^\\") | st.characters(exclude_categories=["C"]), max_size=20
)
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


def in_powershell(text: str) -> str:
    """Write a text as browsers do for PowerShell, which is ASCII: other units of UTF-16 by their number."""
    units = struct.unpack(f"<{len(text.encode('utf-16-le')) // 2}H", text.encode("utf-16-le"))
    written = [chr(unit) if 0x20 <= unit < 0x7F else f"$([char]{unit})" for unit in units]
    return f'"{"".join(f"`{each}" if each in "`$" + chr(34) else each for each in written)}"'


@given(st.text(st.characters(exclude_categories=["Cs", "Co"], exclude_characters="\0")))
def test_a_body_arrives_as_browsers_write_it_for_powershell(text: str) -> None:
    body = in_powershell(json.dumps({"pw": text}, ensure_ascii=False, indent=1))
    for written in (body, f"([System.Text.Encoding]::UTF8.GetBytes({body}))"):
        line = f"Invoke-WebRequest -Uri '{URL}' -Method POST -ContentType application/json -Body {written}"
        assert parse_curl(line).json == {"pw": text}


@pytest.mark.parametrize("code", [0, 55357, 57344, 57345, 70000])
def test_a_number_of_no_character_is_an_error(code: int) -> None:
    for body in (f'"a=$([char]{code})"', f'@{{ a = "$([char]{code})" }}'):
        with pytest.raises(CurlLineError, match="invalid escape"):
            parse_curl(f"irm {URL} -Method Post -Body {body}")


def test_braces_in_a_url_of_powershell_are_text() -> None:
    assert parse_curl(f"irm '{URL}?v={{a}}[1]'").query == {"v": "{a}[1]"}


def test_the_user_agent_of_a_session_is_read_unless_a_parameter_replaces_it() -> None:
    session = '$session = New-Object WebRequestSession\n$session.UserAgent = "Mozilla/5.0 `$"\n'
    line = f"{session}irm {URL} -WebSession $session"
    assert parse_curl(line).headers == {"User-Agent": "Mozilla/5.0 $"}
    assert parse_curl(f"{line} -UserAgent other").headers == {"User-Agent": "other"}
    with pytest.raises(ComputedLine):
        parse_curl(f"$s.UserAgent = 'a' + $b\nirm {URL} -WebSession $s")


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
    assert found is None or all(isinstance(word, str) for word in found.words)


@given(st.text(st.sampled_from("curl ^`\"'@{}=;\n$()\\-ab%A|&>U ")))
def test_arbitrary_text_for_cmd_is_read_or_rejected_with_one_error(text: str) -> None:
    with contextlib.suppress(CurlLineError):
        windows_words(f"curl ^\n {text}")


@pytest.mark.parametrize(
    ("line", "words", "left_out"),
    [
        ('curl ^\n -u "app:pa^ss" x', ["curl", "-u", "app:pa^ss", "x"], False),
        ('curl ^\n -d ^"a^^b ^& c^" x', ["curl", "-d", "a^b & c", "x"], False),
        ('curl ^\n "a&b|c>d" | jq .token', ["curl", "a&b|c>d"], True),
        ("curl ^\n x 2>nul", ["curl", "x"], True),
        ('curl ^\n -d "a=b""c" ""', ["curl", "-d", 'a=b"c', ""], False),
        (
            'curl -d "{\\"s\\":\\"%APP_SECRET%\\"}" x',
            ["curl", "-d", '{"s":"\ue000APP_SECRET\ue001"}', "x"],
            False,
        ),
        (
            'curl "x?a=%41" -d "it\'s %app_secret%"',
            ["curl", "x?a=%41", "-d", "it's \ue000app_secret\ue001"],
            False,
        ),
        (
            "curl --cacert C:\\ca.pem -d %SECRET%",
            ["curl", "--cacert", "C:\\ca.pem", "-d", "\ue000SECRET\ue001"],
            False,
        ),
        ("curl.exe -d 's=it''s' x", ["curl.exe", "-d", "s=it's", "x"], False),
        ("curl.exe `\n x 2>$null", ["curl.exe", "x"], True),
        ("curl ^\n x & echo %B%", ["curl", "x"], True),
        ('curl ^\n -u "app:%APP_SECRET%"', ["curl", "-u", "app:\ue000APP_SECRET\ue001"], False),
        ('curl -u "app:%APP_SECRET%" x', ["curl", "-u", "app:\ue000APP_SECRET\ue001", "x"], False),
        ("curl ^\n a?%E9t%C3%A9&", ["curl", "a?%E9t%C3%A9"], True),
        ('curl.exe -u "app:$env:APP_SECRET" x', ["curl.exe", "-u", "app:\ue000APP_SECRET\ue001", "x"], False),
        ("curl.exe -d a=$env:A x | ConvertFrom-Json", ["curl.exe", "-d", "a=\ue000A\ue001", "x"], True),
        ("curl.exe `\n x; echo", ["curl.exe", "x"], True),
    ],
)
def test_the_quotes_variables_and_ends_of_each_shell_count(
    line: str, words: list[str], *, left_out: bool
) -> None:
    assert windows_words(line) == (words, left_out)


def test_the_constants_and_numbers_of_a_table_keep_their_types() -> None:
    table = "@{ ttl=3600; f=1.5; on=$true; off=$False; none=$null; s='3600'; e=$env:KEY; t=\"is $true\" }"
    request = parse_curl(f"irm {URL} -Method Post -Body ({table} | ConvertTo-Json -Depth 5) | Select token")
    assert request.json == {
        "ttl": 3600, "f": 1.5, "on": True, "off": False, "none": None, "s": "3600", "e": "\ue000KEY\ue001",
        "t": "is True",
    }  # fmt: skip
    assert request.notes[0] == "everything after the curl command is ignored"
    form = parse_curl(f"irm {URL} -Method Post -Body @{{ on = $true; none = $null; e = $env:KEY }}").form
    assert form == {"on": "True", "none": "", "e": "\ue000KEY\ue001"}


def test_a_table_without_a_method_is_a_query() -> None:
    request = parse_curl(f"Invoke-RestMethod {URL} -Body @{{ a = 'b'; n = 1 }}")
    assert (request.method, request.query, request.form) == ("GET", {"a": "b", "n": "1"}, None)


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("-Method Post -Headers $headers", "-headers: write the table here"),
        ("-Method Post -Body $body", "-body: write the value here"),
        ("-Credential $c", "-credential: unknown or unsupported"),
        ("-Method Post -InFile x.json", "-infile: unknown or unsupported"),
        ("-Meth Post", "-meth: unknown or unsupported"),
        ("-Method:s3cr3t", "-...: unknown or unsupported"),
        ("-Body 'text'", "without it PowerShell sends GET"),
        ("-Method Post -Body @{ a = @{ b = 1 } }", "nested tables"),
        ("-Method Post -Body", "has no value"),
        ('-Method Post -Body ("x" + "y")', "computes a value"),
        ('-Method Post -Body "x" + "y"', "computes a value"),
        ('-Method Post -Headers @{ a = "x" + "y" }', "computes a value"),
        ("-Method Post -Headers @{ a = Get-Secret }", "computes a value"),
        ("-Method Post -Headers @{ a = $config.key }", "computes a value"),
        ('-Method Post -Body "$global:secret"', "computes a value"),
        ("-Method Post -Body (Get-Content x)", "computes a value"),
        ("@p", "splatting"),
        ("-Method Post -Body @p", "splatting"),
        ("-Method Post -Body @'a=b'@", "begins in the line after"),
        ("-Method Post -Body @'\na=b", "not closed"),
        ("-Method Post -Body 'a','b'", "a comma outside"),
        ("-Method Post -Headers @{ a = $env:KEY.Length }", "computes a value"),
        ('-Method Post -Body "${env:A-B}"', "computes a value"),
        ('-Method Post -Body "`u{41}"', "computes a value"),
        ('-Method Post -Body "a`0b"', "invalid escape"),
        ("-Method Post -Body (@{ a = 1 } | ConvertTo-Json -AsArray)", "computes a value"),
        ("> out.json -Method Post", "after a redirection"),
        ("-Method Post -Body '\ue000A\ue001'", "copy it again"),
    ],
)
def test_what_would_be_lost_or_changed_is_an_error(rest: str, words: str) -> None:
    with pytest.raises(CurlLineError, match=words) as failure:
        parse_curl(f"Invoke-RestMethod {URL} {rest}")
    assert "s3cr3t" not in str(failure.value)


@pytest.mark.parametrize(
    "name", ["Cookies.Add($c)", 'Headers["Authorization"] = "s3cr3t"', "Credentials = $c"]
)
def test_what_a_session_would_add_is_an_error(name: str) -> None:
    with pytest.raises(CurlLineError, match=r"of \$session are not read") as failure:
        parse_curl(f"$s = New-Object WebRequestSession\n$s.{name}\nirm {URL} -WebSession $s")
    assert "s3cr3t" not in str(failure.value)


@pytest.mark.parametrize(
    "rest", ["| % { $_.token }", "| Select a, b", "\nWrite-Host $r.token it's", "> out.json", "2>$null; exit"]
)
def test_what_follows_a_command_of_powershell_is_not_read(rest: str) -> None:
    request = parse_curl(f"$r = irm {URL} -Method Post -Body @{{ a = 'b' }} {rest}")
    assert (request.form, request.notes) == ({"a": "b"}, ("everything after the curl command is ignored",))


def test_the_name_of_a_host_is_no_command() -> None:
    assert windows_words("curl https://irm.corp.example/irm -d a=irm") is None


@pytest.mark.parametrize(
    ("body", "form"),
    [
        ("@'\na=b&s=s3cr3t\n'@", {"a": "b", "s": "s3cr3t"}),
        ("@'  \r\na=it''s\n'@\r\n", {"a": "it''s"}),
        ('@"\na=$env:KEY&b="`$x"\n"@', {"a": "\ue000KEY\ue001", "b": '"$x"'}),
    ],
)
def test_here_strings_are_read(body: str, form: dict[str, str]) -> None:
    assert parse_curl(f"irm {URL} -Method Post -Body {body}").form == form
    assert parse_curl(f"curl.exe {URL} -d {body}").form == form


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("curl 'https://a' -d \"s=%APP_SECRET%\"", "is a variable of cmd"),
        ('curl "https://a" -u "$ID:%APP_SECRET%"', "is a variable of cmd"),
        ('curl ^\n https://a -d "s=%APP_SECRET:~0,8%"', "only %NAME% with"),
        ('curl ^\n https://a -d "s=%APP-SECRET%"', "only %NAME% with"),
        ("curl ^\n https://a -d 's=1'", "single quotes are text"),
        ("curl ^\n https://a?b=1&c=2", "put the URL in quotes"),
        ("curl ^\n https://a 2>nul -d a=b", "after a redirection"),
    ],
)
def test_what_cmd_would_read_differently_is_an_error(line: str, words: str) -> None:
    with pytest.raises(CurlLineError, match=words):
        windows_words(line)


@given(VALUE)
def test_a_value_arrives_in_each_kind_of_quotes_of_powershell(value: str) -> None:
    escaped = re.sub(r"[`\"$]", r"`\g<0>", value)
    written = [
        f"'{value.replace(chr(39), chr(39) * 2)}'",
        f'"{escaped}"',
        f"@'\n{value}\n'@",
        f'@"\n{escaped}\n"@',
    ]
    for body in written:
        words = windows_words(f"irm {URL} -Method Post -Body {body} -UserAgent x")
        assert words is not None
        assert words.words[-2:] == ["--data-raw", value] if value else words.words[-1] == "x"


@given(VALUE.map(lambda value: value.replace("%", "").replace("\n", "")))
def test_a_value_arrives_in_the_quotes_of_cmd(value: str) -> None:
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), value)
    carets = re.sub(r"""[^A-Za-z0-9\s]""", r"^\g<0>", escaped)
    for written in (f'"{escaped}"', f'^"{carets}^"'):
        if written[0] == '"' and any(sign in value for sign in '"^'):
            continue  # cmd counts each quote, and a caret is text within its quotes
        words = windows_words(f'curl ^\n -d {written} -u "%APP%:%APP_SECRET%"')
        assert words == (["curl", "-d", value, "-u", "\ue000APP\ue001:\ue000APP_SECRET\ue001"], False)
