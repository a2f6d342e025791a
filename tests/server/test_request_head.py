"""The head of a request: its scope, and the headers that frame and route it."""

from http import HTTPStatus

import pytest

from proxy.server.limits import RequestRejected
from proxy.server.request_head import Endpoints, build_scope, check_headers, header_lines, names_rtsp
from proxy.wire.headers import Headers

HOST = (b"host", b"x:80")
ENDPOINTS = Endpoints("https", ("192.0.2.1", 5), ("192.0.2.2", 443), "/root")


def rejection(version: str, headers: Headers) -> HTTPStatus:
    """The status with which headers are rejected."""
    with pytest.raises(RequestRejected) as caught:
        check_headers(version, headers)
    return caught.value.status


def test_a_scope_has_the_callers_bytes_and_the_decoded_path() -> None:
    state: dict[str, object] = {"a": 1}
    scope = build_scope(b"/a%2F%E4%BD%A0?q=%20?", b"PUT", "1.1", [HOST], ENDPOINTS, state)
    assert scope["path"] == "/a/\u4f60"
    assert scope["raw_path"] == b"/a%2F%E4%BD%A0"
    assert scope["query_string"] == b"q=%20?"
    assert (scope["method"], scope["http_version"], scope["headers"]) == ("PUT", "1.1", [HOST])
    assert (scope["scheme"], scope["client"], scope["server"], scope["root_path"]) == ENDPOINTS
    assert scope["state"] == state
    assert scope["state"] is not state


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (b"GET /a RTSP/1.0\r\nHost: x\r\n\r\n", True),
        (b"\r\nGET  /a  RTSP/2.0\r\n", True),
        (b"GET / HTTP/1.1\r\n\r\nGET /a RTSP/1.0\r\n", True),
        (b"GET /a HTTP/1.0\r\nX: GET /a RTSP/1.0\r\n\r\n", False),
        (b"GET /a HTTP/1.0\r\nX: y\r\n\r\n", False),
        (b"GET / RTSP/1.0\r\n\r\nGET /a HTTP/1.0\r\n\r\n", False),
    ],
)
def test_the_protocol_of_a_request_line_is_found(lines: bytes, *, named: bool) -> None:
    assert names_rtsp(lines, b"GET", b"/a") == named


def test_a_target_is_ascii() -> None:
    with pytest.raises(RequestRejected, match="ASCII"):
        build_scope(b"/\xe4", b"GET", "1.1", [HOST], ENDPOINTS, {})


@pytest.mark.parametrize(
    ("version", "headers", "found"),
    [
        ("1.1", [HOST], (False, False)),
        ("1.0", [], (False, False)),
        ("1.1", [HOST, (b"transfer-encoding", b" Chunked ")], (False, False)),
        ("1.1", [HOST, (b"expect", b"100-Continue")], (True, False)),
        ("1.0", [(b"expect", b"100-continue")], (False, False)),
        ("1.1", [HOST, (b"upgrade", b"WebSocket")], (False, True)),
        ("1.1", [HOST, (b"upgrade", b"h2c")], (False, False)),
        ("1.0", [HOST, (b"upgrade", b"websocket")], (False, False)),
        ("1.1", [(b"host", b"[::1]:80")], (False, False)),
        ("1.1", [(b"host", b"")], (False, False)),
    ],
)
def test_headers_that_pass(version: str, headers: Headers, found: tuple[bool, bool]) -> None:
    assert check_headers(version, headers) == found


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("1.1", [], 400),
        ("1.1", [HOST, HOST], 400),
        ("1.0", [HOST, HOST], 400),
        ("1.1", [(b"host", b"a b")], 400),
        ("1.1", [(b"host", b"a/b")], 400),
        ("1.0", [HOST, (b"transfer-encoding", b"chunked")], 400),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip")], 501),
        ("1.1", [HOST, (b"expect", b"200-ok")], 417),
        ("2.0", [HOST], 505),
    ],
)
def test_headers_that_two_servers_could_read_differently(version: str, headers: Headers, status: int) -> None:
    assert rejection(version, headers) == status


def test_header_lines_are_written_as_they_are() -> None:
    assert header_lines([(b"a", b"1"), (b"b", b"")]) == b"a: 1\r\nb: \r\n"
    assert header_lines([]) == b""
