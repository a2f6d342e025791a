"""Replies in other forms than plain JSON: XML, JSON in strings, cookies, headers, local times."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.sources.reply import (
    TOKEN_BYTES_MAX,
    UNITS,
    XML_BYTES_MAX,
    XML_TAGS_MAX,
    Reply,
    codec_of,
    cookies_of,
    embedded,
    find_path,
    has_no_zone,
    life_of,
    parse_body,
)
from proxy.credentials.sources.reply_faults import doubt_lifetime
from tests.credentials.sources.test_reply_lifetime import JSON
from tests.credentials.sources.token_endpoint import TokenEndpoint, fetch, recipe_of

NOW = 1_795_536_000.0  # 2026-11-24T16:00:00Z
SOAP = b"""<?xml version="1.0" encoding="UTF-8"?>
<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Body>
<r:login xmlns:r="urn:corp" code="0"><r:token> t-1 </r:token><r:expires_in>300</r:expires_in></r:login>
</soap:Body></soap:Envelope>"""


@pytest.mark.parametrize(
    ("body", "path", "value"),
    [
        (b'{"a": {"b": [1, 2]}}', "a.b.1", 2),
        (SOAP, "Envelope.Body.login.token", "t-1"),
        (SOAP, "Envelope.Body.login.@code", "0"),
        (b"<r><i>1</i><i>2</i><i>3</i></r>", "r.i.2", "3"),
        (b"<r a='1'>text<b/></r>", "r.#text", "text"),
        (b"<token>t-1</token>", "token", "t-1"),
        (json.dumps({"data": json.dumps({"token": "t-1", "l": [{"x": 1}]})}).encode(), "data.l.0.x", 1),
        (json.dumps(json.dumps({"data": {"token": "t-1"}})).encode(), "data.token", "t-1"),
    ],
)
def test_a_path_leads_through_every_form(body: bytes, path: str, value: object) -> None:
    assert find_path(parse_body(body), path) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"text",
        b"<html><body>no</body></html>",
        b"<!DOCTYPE html><p>no",
        b"<a><b></a>",
        b'<!DOCTYPE r [<!ENTITY e "x">]><r>&e;</r>',
        b'<!DOCTYPE r SYSTEM "file:///etc/passwd"><r/>',
        b"<r>&undefined;</r>",
        b'<?xml version="1.0" encoding="nonsense"?><r/>',
        b"\xff\xfe<\x00r\x00",
        '<!DOCTYPE r [<!ENTITY e "x">]><r>&e;</r>'.encode("utf-16-le"),
        b"<r>%b</r>" % (b"x" * XML_BYTES_MAX),
    ],
)
def test_a_body_of_another_format_is_none(body: bytes) -> None:
    assert parse_body(body) is None


def test_a_deep_document_costs_no_stack() -> None:
    assert parse_body(b"<a>" * (XML_TAGS_MAX // 2) + b"</a>" * (XML_TAGS_MAX // 2))


@pytest.mark.parametrize("element", [b"<b/>", b"<b></b>", b"<c>0</c>"])
def test_xml_with_too_many_elements_is_not_parsed(element: bytes) -> None:
    few, many = ((XML_TAGS_MAX + more) // element.count(b"<") * element for more in (-2, 2))
    assert parse_body(b"<a>" + few + b"</a>")
    assert parse_body(b"<a>" + many + b"</a>") is None


@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        ("GBK", "gbk"),
        ('"gb2312"', "gbk"),
        ("GB18030", "gb18030"),
        ("ISO-8859-1", "latin-1"),
        ("Big5", "big5"),
    ],
)
async def test_json_in_the_charset_of_the_header_is_read(
    endpoint: TokenEndpoint, charset: str, codec: str
) -> None:
    words = "été" if codec == "latin-1" else "成功誠"[: 2 if codec == "gbk" else 3]
    endpoint.body = f'{{"msg": "{words}", "access_token": "t-1"}}'.encode(codec)
    endpoint.content_type = f"application/json;charset={charset}"
    found = await fetch(recipe_of(url=endpoint.url, success=("msg", words)))
    assert found.secret.reveal() == "t-1"


@pytest.mark.parametrize(
    ("body", "content_type", "codec"),
    [
        ('"é"'.encode(), "application/json; charset=ISO-8859-1", None),
        (b'"\xe9"', "application/json; charset=iso-8859-1", "cp1252"),
        (b'"\xe9"', "application/json; charset=punycode", None),
        (b'"\xe9"', "application/json", None),
    ],
    ids=["in fact UTF-8", "as named", "unknown", "not named"],
)
def test_the_codec_follows_the_header_unless_the_body_is_utf_8(
    body: bytes, content_type: str, codec: str | None
) -> None:
    assert codec_of(body, content_type) == codec


def test_json_in_a_string_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = json.dumps({"token": "t-1", "more": json.dumps({"expires_in": 300})})
    reply = Reply({"data": inner}, {}, NOW)
    parsed: list[str] = []

    def parse(text: str) -> object:
        parsed.append(text)
        return embedded(text)

    monkeypatch.setattr("proxy.credentials.sources.reply.embedded", parse)
    for _ in range(3):
        assert reply.find("data.token") == "t-1"
        assert reply.find("data.more.expires_in") == 300
    assert len(parsed) == 2


@pytest.mark.parametrize("unit", [*UNITS, "iso8601+08:00"])
def test_a_text_that_is_too_long_for_a_lifetime_is_not_parsed(unit: str) -> None:
    """It may take long: see the time that a date of a megabyte takes."""
    texts = ("2026-11-24T16:00:00Z", "300", "1" * 10, "a.e30.c")
    for text in texts:
        assert life_of(text + " " * TOKEN_BYTES_MAX, unit, Reply(None, {}, NOW)) is None


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_every_body_is_parsed_or_rejected(body: bytes) -> None:
    parse_body(body)


def test_cookies_are_found_with_their_ends() -> None:
    found = cookies_of(
        [
            "SESSION=abc; Path=/; Max-Age=300; HttpOnly",
            'b="x y"; expires=Tue, 24 Nov 2026 16:05:00 GMT',
            "junk",
            "=",
        ]
    )
    assert found == {
        "cookie:SESSION": "abc",
        "cookie:SESSION;max-age": "300",
        "cookie:b": "x y",
        "cookie:b;expires": "Tue, 24 Nov 2026 16:05:00 GMT",
    }


def life(value: Any, unit: str) -> float | None:
    return life_of(value, unit, Reply(None, {}, NOW))


@pytest.mark.parametrize(
    "value",
    [
        *("2026-11-25T00:05:00", "2026-11-25 00:05:00", "2026/11/25 00:05:00", "20261125000500"),
        *(20261125000500, "2026-11-25 00:05:00.000", " 2026-11-25 00:05:00 "),
    ],
)
def test_a_local_time_is_read_by_the_offset_of_its_clock(value: object) -> None:
    assert has_no_zone(value)
    assert life(value, "iso8601+08:00") == 300
    assert life(value, "iso8601") == 300 + 8 * 3600
    assert life(value, "iso8601-05:30") == 300 + 13.5 * 3600


@pytest.mark.parametrize(
    "value",
    ["2026-11-24T16:05:00Z", "2026-11-25T00:05:00+08:00", "Tue, 24 Nov 2026 16:05:00 GMT"],
)
def test_a_time_with_a_zone_needs_no_offset(value: str) -> None:
    assert not has_no_zone(value)
    assert life(value, "iso8601") == life(value, "iso8601+03:00") == 300


@pytest.mark.parametrize("value", [None, True, "soon", "2026-13-45 99:99:99", [], {}, "Tue, 99 Nov 2026"])
def test_an_invalid_time_is_none(value: object) -> None:
    assert life(value, "iso8601+08:00") is None


def test_a_local_time_without_an_offset_is_doubted() -> None:
    reply = Reply({"end": "2026-11-25 00:05:00"}, {}, NOW)
    doubt = doubt_lifetime([("end", "iso8601")], reply, "t", default_ttl=1, max_ttl=1e7)
    assert doubt is not None
    assert doubt.readable
    assert 'expires at "end" has no time zone and is read as UTC, 8 h 5 min from now' in doubt.reason
    assert 'offset = "+08:00"' in doubt.reason
    assert doubt_lifetime([("end", "iso8601+08:00")], reply, "t", default_ttl=1, max_ttl=1e7) is None


async def test_an_endpoint_may_answer_in_xml_with_a_life_in_a_header(endpoint: TokenEndpoint) -> None:
    endpoint.body, endpoint.headers["X-Token-TTL"] = SOAP, "120"
    recipe = recipe_of(
        url=endpoint.url,
        success=("Envelope.Body.login.@code", "0"),
        token="Envelope.Body.login.token",
        expires=(("header:X-Token-TTL", "seconds"),),
    )
    fetched = await fetch(recipe)
    assert (fetched.secret.reveal(), fetched.lifetime, fetched.doubt) == ("t-1", 120.0, None)


async def test_a_token_may_be_a_cookie(endpoint: TokenEndpoint) -> None:
    endpoint.headers["Set-Cookie"] = "SID=t-1; Path=/; Max-Age=600; Secure"
    recipe = recipe_of(url=endpoint.url, token="cookie:SID", expires=(("cookie:SID;max-age", "seconds"),))
    fetched = await fetch(recipe)
    assert (fetched.secret.reveal(), fetched.lifetime) == ("t-1", 600.0)
