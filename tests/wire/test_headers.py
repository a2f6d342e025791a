"""Headers: which are forwarded, which are returned, request ids, and the URLs in an upstream's headers."""

import re
from collections.abc import Callable
from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.headers import (
    SEGMENTS_MAX,
    URLS_MAX,
    Headers,
    choose_request_id,
    find_header,
    is_forwarded,
    is_preflight,
    media_type,
    relative_reference,
    relocate,
    request_headers,
    response_headers,
)

SAFE = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox")]
OWN = [(b"cache-control", b"no-store"), *SAFE]


def names(headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [name for name, _ in headers]


@pytest.mark.parametrize(
    "name",
    [
        b"authorization", b"api-key", b"x-api-key", b"cookie", b"proxy-authorization", b"proxy-anything",
        b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"host", b"expect",
        b"forwarded", b"x-forwarded-for", b"x-forwarded-anything", b"x-real-ip", b"origin", b"referer",
        b"content-length", b"x-request-id", b"x-client-ip", b"true-client-ip", b"cf-connecting-ip",
        b"x-original-url", b"x-rewrite-url", b"x-http-method-override", b"x-method-override",
        b"access-control-request-method", b"access-control-request-headers", b"x-portkey-custom-host",
        b"helicone-target-url", b"helicone-openai-api-base",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "spell", [bytes, lambda name: name.replace(b"-", b"_"), lambda n: n.replace(b"-", b"_", 1)]
)
def test_headers_of_the_caller_or_the_hop_are_not_forwarded(
    name: bytes, spell: Callable[[bytes], bytes]
) -> None:
    up = request_headers([(spell(name), b"callers-own")], request_id="r1")
    assert up == [(b"accept-encoding", b"identity"), (b"x-request-id", b"r1")]


@pytest.mark.parametrize(
    "name",
    [
        b"user-agent",
        b"openai-beta",
        b"x-stainless-lang",
        b"traceparent",
        b"content-type",
        b"accept",
        b"x-custom",
    ],
)
def test_all_other_headers_are_forwarded_in_order_and_unchanged(name: bytes) -> None:
    sent = [(name, b"one"), (b"x-other", b"two"), (name, b"three")]
    assert request_headers(sent, request_id="r1")[:3] == sent


def test_identity_encoding_and_our_request_id_are_sent() -> None:
    up = request_headers([(b"accept-encoding", b"gzip, br")], request_id="r1")
    assert up == [(b"accept-encoding", b"identity"), (b"x-request-id", b"r1")]


def test_headers_named_by_connection_are_not_forwarded() -> None:
    sent = [(b"connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"x-end", b"2")]
    assert b"x-hop" not in names(request_headers(sent, request_id="r"))
    assert b"x-end" in names(request_headers(sent, request_id="r"))
    assert names(response_headers(sent, event_stream=False)) == [b"x-end", *names(OWN)]
    sent = [(b"connection", b"x_hop"), (b"x_hop", b"1"), (b"x-hop", b"2")]
    assert names(request_headers(sent, request_id="r")) == [b"accept-encoding", b"x-request-id"]


@pytest.mark.parametrize(
    "name",
    [
        b"Set-Cookie",
        b"Server",
        b"Date",
        b"Alt-Svc",
        b"Strict-Transport-Security",
        b"Keep-Alive",
        b"X-Request-Id",
        b"Access-Control-Allow-Origin",
        b"Access-Control-Allow-Credentials",
        b"Access-Control-Anything",
        b"Timing-Allow-Origin",
        b"Refresh",
        b"Clear-Site-Data",
        b"Content-Security-Policy",
        b"X-Content-Type-Options",
        b"Proxy-Authenticate",
        b"X-Accel-Redirect",
        b"X-Accel-Buffering",
        b"X-Sendfile",
    ],
)
@pytest.mark.parametrize("event_stream", [True, False])
def test_headers_of_the_upstreams_site_are_not_returned(name: bytes, event_stream: bool) -> None:  # noqa: FBT001
    arrived = [(name, b"of the upstream"), (b"retry-after", b"3")]
    down = response_headers(arrived, event_stream=event_stream)
    assert down[0] == (b"retry-after", b"3")
    assert b"of the upstream" not in [value for _, value in down]


def test_an_event_stream_forbids_caches_and_buffers() -> None:
    arrived = [
        (b"Content-Type", b"text/event-stream"),
        (b"Cache-Control", b"max-age=60"),
        (b"Content-Length", b"9"),
    ]
    assert response_headers(arrived, event_stream=True) == [
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-store, no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
        *SAFE,
    ]


def test_any_other_response_keeps_its_length_and_encoding() -> None:
    arrived = [(b"content-length", b"9"), (b"content-encoding", b"gzip"), (b"cache-control", b"private")]
    assert response_headers(arrived, event_stream=False) == [*arrived, *SAFE]


def test_any_other_response_is_not_cached_unless_the_upstream_allows_it() -> None:
    assert response_headers([], event_stream=False) == OWN
    assert response_headers([(b"Cache-Control", b"max-age=9")], event_stream=False)[0] == (
        b"cache-control", b"max-age=9",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "header", "expected"),
    [
        ("OPTIONS", b"access-control-request-method", True),
        ("OPTIONS", b"Access-Control-Request-Method", True),
        ("OPTIONS", b"origin", False),
        ("POST", b"access-control-request-method", False),
    ],
)
def test_a_preflight_is_known(method: str, header: bytes, expected: bool) -> None:  # noqa: FBT001
    assert is_preflight(method, [(header, b"POST")]) is expected


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=12).map(bytes.lower), st.binary(max_size=12))))
def test_no_header_is_invented_or_changed(sent: list[tuple[bytes, bytes]]) -> None:
    up = request_headers(sent, request_id="r")[:-2]
    assert [pair for pair in sent if pair in up] == [pair for pair in sent if pair[0] in names(up)]


def test_a_harmless_request_id_is_kept() -> None:
    assert choose_request_id([(b"x-request-id", b"trace_1.a-B")]) == "trace_1.a-B"


@pytest.mark.parametrize("offered", [b"", b"a b", b"x" * 129, b"a\xff", b'{"a":1}', b"a;b"])
def test_a_dubious_request_id_is_replaced(offered: bytes) -> None:
    assert re.fullmatch("[0-9a-f]{32}", choose_request_id([(b"x-request-id", offered)]))


def test_request_ids_differ() -> None:
    assert choose_request_id([]) != choose_request_id([])


@pytest.mark.parametrize(
    "name", [b"forwarded", b"via", b"x-real-ip", b"x-forwarded-for", b"x-forwarded-proto"]
)
def test_a_forwarded_request_is_detected(name: bytes) -> None:
    assert is_forwarded([(name, b"x")])
    assert not is_forwarded([(b"user-agent", b"x")])


def test_media_type_leaves_parameters_and_case_out() -> None:
    assert media_type(b"Text/Event-Stream; charset=utf-8") == b"text/event-stream"
    assert media_type(None) == b""


def test_find_header_gives_the_first_value() -> None:
    assert find_header([(b"A", b"1"), (b"a", b"2")], b"a") == b"1"
    assert find_header([], b"a") is None


BASE = "https://llm.corp.example/v1"
MOUNTED = "http://proxy/agent/api/llm_proxy/v1"


@pytest.mark.parametrize("path", ["/files", "/files/", "/files/a/b", "/chat/completions"])
@pytest.mark.parametrize(
    ("value", "target"),
    [
        (f"{BASE}/files/f-1", "/files/f-1"),
        ("https://LLM.corp.example:443/v1/files/f-1", "/files/f-1"),
        ("//llm.corp.example/v1/files/f-1", "/files/f-1"),
        ("/v1/files/f-1?a=b#c", "/files/f-1?a=b#c"),
        ("/v1/f:1/x", "/f:1/x"),
        (" /v1/x\t", "/x"),
    ],
)
def test_a_url_below_the_base_becomes_the_same_below_the_mount(value: str, target: str, path: str) -> None:
    relative = relative_reference(value.encode(), BASE, path.encode())
    assert relative is not None
    assert "corp" not in relative.decode()
    assert urljoin(MOUNTED + path, relative.decode()) == MOUNTED + target


@pytest.mark.parametrize("value", [b"f-2", b"./f-2", b"../files/f-2", b"?page=2"])
def test_a_relative_url_stays_one(value: bytes) -> None:
    relative = relative_reference(value, BASE, b"/files/f-1")
    assert relative is not None
    assert urljoin(MOUNTED + "/files/f-1", relative.decode()) == urljoin(
        MOUNTED + "/files/f-1", value.decode()
    )


@pytest.mark.parametrize(
    "value",
    [
        b"http://10.0.0.7:8080/internal",
        b"http://llm.corp.example/v1/x",
        b"https://llm.corp.example:8443/v1/x",
        b"https://llm.corp.example.evil.example/v1/x",
        b"https://user@llm.corp.example/v1/x",
        b"https://llm.corp.example/v10/x",
        b"https://llm.corp.example/v1/../admin",
        b"https://llm.corp.example/v1/%2e%2e/admin",
        b"https://llm.corp.example/v1/..%2fadmin",
        b"https://llm.corp.example/v1//evil.example/x",
        b"https://llm.corp.example/",
        b"//10.0.0.7/v1/x",
        b"/admin",
        b"../../admin",
        b"javascript:alert(1)",
        b"data:text/html,x",
        b"file:///etc/passwd",
        b"\\\\10.0.0.7\\x",
        b"/v1/a b",
        b"/v1/\xe9",
        b"http://[",
        b"http://llm.corp.example:port/",
        b"",
    ],
)
def test_any_other_url_is_dropped(value: bytes) -> None:
    assert relative_reference(value, BASE, b"/files") is None
    for name in (
        b"Location",
        b"content-location",
        b"Operation-Location",
        b"Azure-AsyncOperation",
        b"SourceMap",
    ):
        assert relocate([(b"a", b"1"), (name, value)], BASE, b"/files") == [(b"a", b"1")]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (
            b'<https://llm.corp.example/v1/files?after=2>; rel="next", </v1/files>; rel="first"',
            b'<./files?after=2>; rel="next", <./files>; rel="first"',
        ),
        (b'</v1/files>; rel="next", <http://10.0.0.7/>; rel="up"', None),
        (b'</v1/files>; rel="next"; anchor="http://10.0.0.7/"', None),
        (b"http://10.0.0.7/", None),
        (b"<" * 60_000, None),
    ],
)
def test_links_are_all_relative_or_none_is_kept(value: bytes, kept: bytes | None) -> None:
    assert relocate([(b"Link", value)], BASE, b"/files") == ([] if kept is None else [(b"Link", kept)])


def test_other_headers_stay_as_they_are() -> None:
    headers = [(b"x-url", b"http://10.0.0.7/")]
    assert relocate(headers, BASE, b"/files") is headers


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ([(b"Link", b"<a>" * (URLS_MAX + 1))], b"/models"),
        ([(b"Link", b"<a>, <b>")] * (URLS_MAX // 2 + 1), b"/models"),
        ([(b"Location", b"a")] * (URLS_MAX + 1), b"/models"),
        ([(b"Location", b"a")], b"/models" + b"/a" * SEGMENTS_MAX),
    ],
)
def test_too_many_urls_or_segments_drop_all_headers_with_urls(headers: Headers, path: bytes) -> None:
    assert relocate([(b"X", b"1"), *headers], BASE, path) == [(b"X", b"1")]


def test_as_many_urls_and_segments_as_allowed_are_rewritten() -> None:
    path = b"/models" + b"/a" * (SEGMENTS_MAX - 1)
    ((_, link),) = relocate([(b"Link", b", ".join([b"<a>"] * URLS_MAX))], BASE, path)
    assert link.count(b"../") == URLS_MAX * (SEGMENTS_MAX - 1)
