"""The head of a request: its scope, and the checks that llhttp does not make (pure)."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, Literal, NamedTuple, TypedDict
from urllib.parse import unquote

from proxy.server.limits import RequestRejected
from proxy.wire.headers import Headers

_SOURCE: Final = b"SOURCE"
"""The method of Icecast's protocol, which llhttp also reads in HTTP."""
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")


class Scope(TypedDict):
    """The scope of a request, or of the handshake of a WebSocket (ASGI 3.0).

    `path` is percent-decoded; `raw_path` and `query_string` are the caller's bytes, and header names are in
    lower case. `client` and `server` are address and port, or None on a Unix socket.
    """

    type: Literal["http", "websocket"]
    asgi: dict[str, str]
    http_version: str
    method: str
    scheme: str
    path: str
    raw_path: bytes
    query_string: bytes
    root_path: str
    headers: Headers
    client: tuple[str, int] | None
    server: tuple[str, int] | None
    state: dict[str, object]
    extensions: dict[str, Mapping[str, object]]


class Endpoints(NamedTuple):
    """What the scopes of all requests of one connection have in common."""

    scheme: str
    client: tuple[str, int] | None
    server: tuple[str, int] | None
    root_path: str


def build_scope(
    target: bytes,
    method: bytes,
    version: str,
    headers: Headers,
    endpoints: Endpoints,
    state: dict[str, object],
) -> Scope:
    """Return the scope of a request.

    Raises:
        RequestRejected: 400, the target holds bytes beyond ASCII; 501, the method is not one of HTTP.
    """
    if method == _SOURCE:
        raise unknown_method()
    if not target.isascii():
        raise RequestRejected(HTTPStatus.BAD_REQUEST, "the request target holds bytes beyond ASCII")
    path, _, query = target.partition(b"?")
    text = path.decode("ascii")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": version,
        "method": method.decode("ascii"),
        "scheme": endpoints.scheme,
        "path": unquote(text) if "%" in text else text,
        "raw_path": path,
        "query_string": query,
        "root_path": endpoints.root_path,
        "headers": headers,
        "client": endpoints.client,
        "server": endpoints.server,
        "state": state.copy(),
        "extensions": {},
    }


def names_rtsp(lines: bytes, method: bytes, target: bytes) -> bool:
    """Whether these lines include the request line and its protocol is RTSP, which llhttp reads like HTTP."""
    if b" RTSP/" not in lines:
        return False
    each_words = (line.split() for line in lines.split(b"\n"))
    return any(words[:2] == [method, target] and words[-1].startswith(b"RTSP/") for words in each_words)


def unknown_method() -> RequestRejected:
    """Return the rejection of a request whose method is not one of HTTP."""
    return RequestRejected(HTTPStatus.NOT_IMPLEMENTED, "unknown method")


def unknown_version() -> RequestRejected:
    """Return the rejection of a request in another protocol or version."""
    return RequestRejected(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are served")


def check_headers(version: str, headers: Headers) -> tuple[bool, bool]:
    """Check the headers that frame and route a request.

    Two servers must not read one request in two ways (RFC 9112 3.2, 6.1, 11.2).

    Returns:
        Whether the caller expects a 100, and whether it offers to continue as a WebSocket.

    Raises:
        RequestRejected: 400, 417, 501 or 505.
    """
    if version not in {"1.0", "1.1"}:
        raise unknown_version()
    hosts = 0
    expects = False
    upgrade = b""
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if not _HOST.fullmatch(value):
                raise RequestRejected(HTTPStatus.BAD_REQUEST, "the Host header is malformed")
        elif name == b"transfer-encoding":
            if version == "1.0":
                raise RequestRejected(HTTPStatus.BAD_REQUEST, "Transfer-Encoding in HTTP/1.0")
            if value.strip().lower() != b"chunked":
                raise RequestRejected(HTTPStatus.NOT_IMPLEMENTED, "only the transfer coding chunked is known")
        elif name == b"expect":
            if value.strip().lower() != b"100-continue":
                raise RequestRejected(HTTPStatus.EXPECTATION_FAILED, "only 100-continue can be expected")
            expects = version == "1.1"
        elif name == b"upgrade":
            upgrade = value.strip().lower()
    if hosts > 1 or (not hosts and version == "1.1"):
        raise RequestRejected(HTTPStatus.BAD_REQUEST, "exactly one Host header is required")
    return expects, upgrade == b"websocket" and version == "1.1"  # RFC 9110 7.8


def header_lines(headers: Headers) -> bytes:
    """Write header lines."""
    return b"".join(b"%s: %s\r\n" % pair for pair in headers)
