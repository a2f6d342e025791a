"""Typical curl lines are read as the requests that curl would send."""

import contextlib
import json
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.recipe.curl_line import CurlRequest, joined, parse_curl
from proxy.recipe.curl_options import read_options
from proxy.recipe.shell_words import CLOSE, OPEN, CurlLineError
from tests.linear_time import KIB, assert_linear

URL = "https://auth.corp.example/token"
FILES = {"body.json": b'{"a":\n 1}\n', "secret.txt": b"p&w d", "latin1": b"\xff", "form": b"a=1&\r\nb=2\n"}


def read(name: str) -> bytes:
    if name not in FILES:
        raise FileNotFoundError(2, "No such file or directory")
    return FILES[name]


def parsed(line: str) -> CurlRequest:
    return parse_curl(line, read)


def test_a_line_of_the_documentation() -> None:
    request = parsed(
        f"""$ curl -sSfX POST {URL}?tenant=rag \\
          -H 'Content-Type: application/json' \\
          -d '{{"appId": "demo", "appSecret": "s", "deep": {{"n": [1, 2.5, true]}}}}'
        """
    )
    assert (request.method, request.url, request.query) == ("POST", URL, {"tenant": "rag"})
    assert request.json == {"appId": "demo", "appSecret": "s", "deep": {"n": [1, 2.5, True]}}
    assert (request.form, request.headers, request.basic) == (None, {}, None)


def test_a_line_of_a_browser_or_postman_loses_their_own_headers() -> None:
    request = parsed(
        rf"""curl '{URL}' \
  -H 'accept: application/json, text/plain, */*' \
  -H 'content-type: application/json;charset=UTF-8' \
  -b 'session=abc; theme=dark' \
  -H 'sec-ch-ua: "Chromium";v="140"' -H 'sec-fetch-mode: cors' -H 'dnt: 1' -H 'priority: u=1, i' \
  -H 'Postman-Token: 3f0e4a52-2f44-4c77-9f5f-1d93fbbd4e21' \
  -H 'user-agent: Mozilla/5.0' -H 'content-length: 33' \
  --data-raw $'{{"name":"it\'s \u4f60","password":"a\u0021b"}}' \
  --compressed --insecure"""
    )
    assert request.json == {"name": "it's 你", "password": "a!b"}
    assert request.headers == {
        "Cookie": "session=abc; theme=dark",
        "accept": "application/json, text/plain, */*",
        "content-type": "application/json;charset=UTF-8",
        "user-agent": "Mozilla/5.0",
    }
    assert any("ca_file" in note for note in request.notes)


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ("-d a=1 -d 'b=x y'", {"a": "1", "b": "x y"}),
        ("-da=1 --data=b=2", {"a": "1", "b": "2"}),
        ("-d 'a=%E4%BD%A0+b'", {"a": "你 b"}),
        ("--data-urlencode 'a=x&y=z' --data-urlencode b@secret.txt", {"a": "x&y=z", "b": "p&w d"}),
        ("--data-binary 'a=1' -H 'Content-Type: application/x-www-form-urlencoded'", {"a": "1"}),
        ("-d 'a=' ", {"a": ""}),
        ("-d @form", {"a": "1", "b": "2"}),
    ],
)
def test_form_options_make_a_form(options: str, form: dict[str, str]) -> None:
    request = parsed(f"curl {URL} {options}")
    assert (request.method, request.form, request.json, request.headers) == ("POST", form, None, {})


@pytest.mark.parametrize(
    "options",
    [
        "--json '{\"a\": 1}'",
        "-d @body.json -H Content-Type:application/json",
        "--data-binary @body.json -H 'content-type: application/vnd.corp+json'",
        "-d '{\"a\": 1}'",
    ],
)
def test_json_options_make_a_json_body(options: str) -> None:
    request = parsed(f"curl {URL} {options}")
    assert (request.json, request.form, request.method) == ({"a": 1}, None, "POST")


def test_the_pseudo_headers_that_a_browser_copies_are_no_headers() -> None:
    words = "-H 'authority: auth.corp.example' -H 'method: POST' -H 'path: /token?T=1' -H 'scheme: https'"
    assert parsed(f"curl '{URL}?T=1' -d a=1 {words}").headers == {}
    others = "-H 'method: GET' -H 'path: /other' -H 'Scheme: x' -H 'X-Path: /token'"
    assert parsed(f"curl '{URL}' -d a=1 {others} -H 'authority: auth.corp.example'").headers == {
        "method": "GET", "path": "/other", "Scheme": "x", "X-Path": "/token",
    }  # fmt: skip
    assert parsed(f"curl '{URL}' -H 'path: /token'").headers == {"path": "/token"}


@given(st.text("ab{}[]\\"))
def test_braces_in_a_url_arrive_as_browsers_escape_them(value: str) -> None:
    escaped = re.sub(r"[{}\[\]]", r"\\\g<0>", value)
    assert parsed(f"curl '{URL}?v={escaped}'").query == {"v": value}
    assert parsed(f"curl -g '{URL}?v={value}'").query == {"v": value}


def test_an_empty_body_is_no_body() -> None:
    request = parsed(f"curl {URL} -d '' -H 'Content-Type: application/json'")
    assert (request.method, request.json, request.form) == ("POST", None, None)


def test_get_moves_the_data_into_the_query() -> None:
    request = parsed(f"curl -G '{URL}?a=1&e=' -d b=2 --data-urlencode 'c=x y'")
    assert (request.method, request.query) == ("GET", {"a": "1", "e": "", "b": "2", "c": "x y"})
    assert request.form is None


def test_get_keeps_the_type_of_the_data_as_curl_does() -> None:
    request = parsed(f"curl -G {URL} --json a=b")
    assert (request.query, request.headers) == (
        {"a": "b"}, {"Content-Type": "application/json", "Accept": "application/json"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "text"),
    [("--json [1 --json ,2]", "[1,2]"), ("--json a -d b=c", "a&b=c"), ("-d a=b --json c -d d", "a=bc&d")],
)
def test_only_data_is_joined_with_an_ampersand(options: str, text: str) -> None:
    assert joined(read_options(options.split()).data, read) == text


@pytest.mark.parametrize(
    ("line", "basic"),
    [
        (f"curl -u id:p:w {URL}", ("id", "p:w")),
        (f"curl --user=id:pw {URL}", ("id", "pw")),
        ("curl https://id:p%40w@auth.corp.example/token", ("id", "p@w")),
        (f"curl -H 'authorization: Basic aWQ6cHc=' {URL}", ("id", "pw")),
    ],
)
def test_user_and_password_are_found_in_any_position(line: str, basic: tuple[str, str]) -> None:
    request = parsed(line)
    assert (request.basic, request.url, request.headers) == (basic, URL, {})


def test_an_empty_password_stays_a_header() -> None:
    request = parsed(f"curl -u key: {URL}")
    assert (request.basic, request.headers) == (None, {"Authorization": "Basic a2V5Og=="})


def test_headers_are_read_as_in_curl() -> None:
    request = parsed(
        f"curl {URL} -A agent -e https://r.example -H 'X-A: 1' -H 'x-a: 2' -H 'X-Empty;' -H 'Accept:' "
        f"-H 'User-Agent: other' --oauth2-bearer tok"
    )
    assert request.headers == {
        "Referer": "https://r.example",
        "Authorization": "Bearer tok",
        "x-a": "1, 2",
        "X-Empty": "",
        "User-Agent": "other",
    }


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ("-u a:b -H 'Authorization: Bearer x'", {"Authorization": "Bearer x"}),
        ("-u a:b --oauth2-bearer tok", {"Authorization": "Bearer tok"}),
        ("--oauth2-bearer tok -H 'authorization: Bearer x'", {"authorization": "Bearer x"}),
        ("-u a:b -H Authorization:", {}),
        ("-u a:b -H 'Authorization;'", {"Authorization": ""}),
        ("-A agent -H User-Agent:", {}),
        ("-b a=1 -b c=2 -H 'Cookie: d=3'", {"Cookie": "d=3"}),
        ("-b a=1 -b c=2", {"Cookie": "a=1; c=2"}),
        ("-e r -H 'referer: q' -H 'Referer: q'", {"referer": "q"}),
        ("-H A: -H 'B;'", {"B": ""}),
    ],
)
def test_a_header_replaces_that_of_another_option_as_in_curl(options: str, headers: dict[str, str]) -> None:
    request = parsed(f"curl {options} {URL}")
    assert (request.headers, request.basic) == (headers, None)


def test_a_replaced_user_is_noted() -> None:
    request = parsed("curl https://c:d@auth.corp.example/token -u a:b -H 'Authorization: Basic aWQ6cHc='")
    assert request.basic == ("id", "pw")
    assert request.notes == ("-u is ignored: as in curl, the Authorization header replaces it",)


def test_certificates_proxy_and_time() -> None:
    request = parsed(
        f"curl {URL} --cacert ca.pem -E client.pem --key client.key -x proxy.corp:3128 -U u:p -m 7 -L"
    )
    assert (request.ca_file, request.client_cert, request.client_key) == (
        "ca.pem",
        "client.pem",
        "client.key",
    )
    assert (request.proxy, request.timeout) == ("http://u:p@proxy.corp:3128", 7.0)
    assert any("redirect" in note for note in request.notes)


def test_irrelevant_options_are_ignored() -> None:
    request = parsed(f"curl -sSvif -o /dev/null -w '%{{http_code}}' --no-buffer --http1.1 --retry 3 {URL}")
    assert (request.method, request.url, request.notes) == ("GET", URL, ())


def test_shell_variables_are_kept() -> None:
    request = parsed('curl "$BASE/token" -u "$ID:$SECRET" -d "a=$A" --data-urlencode "b=$B c"')
    assert request.url == "\ue000BASE\ue001/token"
    assert request.basic == ("\ue000ID\ue001", "\ue000SECRET\ue001")
    assert request.form == {"a": "\ue000A\ue001", "b": "\ue000B\ue001 c"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "no URL"),
        ("wget http://x", "not a curl command"),
        (f"curl {URL} {URL}", "several URLs"),
        (f"curl {URL} -H \u201cA: b\u201d", "curly quotes or long dashes"),
        (f"curl \u2018{URL}\u2019", "curly quotes or long dashes"),
        (f"curl {URL} \u2014data a=b", "curly quotes or long dashes"),
        (f"curl --frobnicate=secretvalue {URL}", "--frobnicate: unknown"),
        (f"curl -sZ {URL}", "-Z: unknown"),
        (f"curl {URL} -H", "-H: the value is missing"),
        (f"curl --silent=1 {URL}", "--silent: takes no value"),
        (f"curl -F a=b {URL}", "-F: multipart"),
        (f"curl --form a=b {URL}", "--form: multipart"),
        (f"curl -X DELETE {URL}", "-X: the method must be one of"),
        (f"curl -I {URL}", "-I: a HEAD request"),
        (f"curl --digest {URL}", "--digest: "),
        (f"curl -d @nowhere {URL}", "cannot be read: No such file"),
        (f"curl -d @latin1 {URL}", "not UTF-8"),
        (f"curl -d @- {URL}", "standard input"),
        (f"curl -H @headers {URL}", "-H @FILE"),
        (f"curl -H ': x' {URL}", "-H: "),
        (f"curl -H 'Authorization Bearer x' {URL}", "-H: write a header as"),
        (f"curl -H 'Authorization: a' -H 'authorization: b' {URL}", "-H: Authorization occurs twice"),
        (f"HTTPS_PROXY=http://secretvalue:3128 curl {URL}", "HTTPS_PROXY=: variables before curl"),
        (f"https_proxy=p:3128 curl {URL}", "https_proxy=: variables before curl"),
        (f"BASE=https://secretvalue\ncurl {URL}", "computes a value"),
        (f"curl -b jar.txt {URL}", "-b FILE"),
        (f"curl -u user {URL}", "-u: give the password"),
        (f"curl -E c.pem:pw {URL}", "--cert FILE:PASSWORD"),
        (f"curl --key k.pem {URL}", "--key: requires --cert"),
        (f"curl --cacert $CA {URL}", "--cacert: write the file's path"),
        (f"curl -x socks5://h:1 {URL}", "-x: only"),
        (f"curl -m nan {URL}", "-m: must be a number"),
        ("curl ftp://x/y", "must be http"),
        ("curl http:///x", "has no host"),
        ("curl http://[x/y", "URL is not valid"),
        ("curl http://h:port/y", "URL is not valid"),
        (f"curl {URL} -H 'Content-Type: application/json' -d '{{a}}'", "should be JSON"),
        (f"curl {URL} --json null", "null"),
        (f"curl {URL} --json NaN", "should be JSON"),
        (f"curl {URL} --json 1e999", "should be JSON"),
        (f"curl {URL} --json '\"\\ud800\"'", "should be JSON"),
        (f"curl {URL} -H 'Content-Type: text/xml' -d '<a/>'", "neither JSON nor a form"),
        (f"curl {URL} --data-urlencode =c=1", "neither JSON nor a form"),
        (f"curl {URL} -d plain", "neither JSON nor a form"),
        (f"curl {URL} -d a=1 -d a=2", "the form: a field occurs twice"),
        (f"curl '{URL}?a=%ff'", "the URL's query: the percent-encoding"),
        (f"curl {URL} ^", "bash"),
        ("curl 'https://auth.corp.example/{tenant}/token'", "{ } and [ ] in a URL"),
        (f"curl '{URL}?page=[1-3]'", "{ } and [ ] in a URL"),
    ],
)
def test_options_that_no_recipe_supports_are_rejected_by_name(line: str, words: str) -> None:
    with pytest.raises(CurlLineError) as refusal:
        parsed(line)
    assert words in str(refusal.value)
    assert "secretvalue" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@given(st.text(st.characters(exclude_categories=["Cs", "Co"], exclude_characters="\0")))
def test_any_json_text_arrives_through_a_quoted_line(secret: str) -> None:
    body = {"secret": secret, "list": [secret]}
    line = shlex.join(["curl", URL, "--json", json.dumps(body)])
    assert parsed(line).json == body


@given(
    st.lists(st.tuples(st.text("abc", min_size=1), st.text("a&=+ %你\\'\"")), unique_by=lambda pair: pair[0])
)
def test_any_form_arrives_through_urlencode(pairs: list[tuple[str, str]]) -> None:
    pieces = [word for name, value in pairs for word in ("--data-urlencode", f"{name}={value}")]
    request = parsed(shlex.join(["curl", URL, *pieces]))
    assert (request.form or {}) == dict(pairs)


WORDS = st.sampled_from(
    [
        "curl",
        URL,
        "-d",
        "-X",
        "-u",
        "a:b",
        "-H",
        "A: b",
        "--json",
        "{}",
        "@body.json",
        "-G",
        "--",
        "-",
        "^",
        "'",
        "$A",
    ]
)


@given(st.lists(WORDS | st.text(max_size=5)))
def test_any_line_is_a_request_or_the_one_error(words: list[Any]) -> None:
    with contextlib.suppress(CurlLineError):
        assert parsed(" ".join(words)).url


PARTS: dict[str, Callable[[CurlRequest], bool]] = {
    "-d 'f=vf'": lambda request: (request.form or {}).get("f") == "vf",
    '-d "g=vg"': lambda request: (request.form or {}).get("g") == "vg",
    "-H 'X-H: vh'": lambda request: request.headers.get("X-H") == "vh",
    "-H 'Authorization: Bearer vb'": lambda request: request.headers.get("Authorization") == "Bearer vb",
    "-b c=vc": lambda request: request.headers.get("Cookie") == "c=vc",
    "-A va": lambda request: request.headers.get("User-Agent") == "va",
    "-x http://proxy:1": lambda request: request.proxy == "http://proxy:1",
    "--cacert ca.pem": lambda request: request.ca_file == "ca.pem",
    "-m 7": lambda request: request.timeout == 7,
    f"'{URL}'": lambda request: request.url == URL,
}
STRANGE = [
    *(
        "",
        "2>&1",
        ">out",
        "<in",
        "| jq .",
        "; id",
        "&",
        "&& id",
        "@p",
        "%NAME%",
        '"%NAME%"',
        "`",
        "^",
        "{",
        "A=b",
        "#",
    ),
    *(
        "'",
        '"',
        "\\",
        "\\ ",
        "\\\n",
        "\n",
        "@'",
        "$1",
        "$$",
        "$[1]",
        "$(id)",
        "${A}",
        "${A:-b}",
        "C:\\a",
        "-",
        "--",
    ),
    *(
        "-H 'X no'",
        "-H 'Authorization: other'",
        "-u a:b",
        "-X",
        "--next",
        "`\n",
        "^\n",
        "'a''b'",
        "x,y",
        "irm x",
        "\u201c",
    ),
]


@given(st.permutations(sorted(PARTS)), st.integers(0, len(PARTS)), st.sampled_from(STRANGE), st.booleans())
@settings(max_examples=1000)
def test_each_part_of_a_line_is_in_the_request_or_an_error(
    parts: list[str],
    at: int,
    strange: str,
    exe: bool,  # noqa: FBT001
) -> None:
    """Whatever stands in a line, nothing else of it is lost or changed without a word."""
    line = " ".join(["curl.exe" if exe else "curl", *parts[:at], strange, *parts[at:]])
    with contextlib.suppress(CurlLineError):
        request = parsed(line)
        kept = parts[:at] if "everything after the curl command is ignored" in request.notes else parts
        kept = parts[:at] if strange == "#" else kept  # a comment of the line
        assert [part for part in kept if not PARTS[part](request)] == []


@pytest.mark.parametrize("before", [b"curl x ", b"curl ^\n ", b"irm x -Method Post -Body ", b"curl.exe `\n "])
def test_a_line_takes_linear_time(before: bytes) -> None:
    def run(line: bytes) -> None:
        with contextlib.suppress(CurlLineError):
            parse_curl(line.decode())

    units = (b"a", b"\\", b"'a' ", b", ", b"-d a=1 ", b"{", b"%A%", b"^", b"`", b"@'\n", b"@{", b"\n")
    assert_linear(run, units, before=before, limit=16 * KIB, memory=400, seconds_per_mib=12)


def test_a_request_does_not_show_its_secrets() -> None:
    assert "canary" not in repr(parsed(f"curl -u id:canary {URL} -d pw=canary"))


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("us:p/a#?@", "us:p%2Fa%23%3F%40"),
        ("us:%2Fa", "us:%2Fa"),
        ("us:$PASSWORD", f"us:{OPEN}PASSWORD{CLOSE}"),
    ],
)
def test_the_user_of_a_proxy_is_escaped_in_its_url(user: str, expected: str) -> None:
    request = parse_curl(f'curl {URL} -x proxy.corp:3128 -U "{user}"')
    assert request.proxy == f"http://{expected}@proxy.corp:3128"
