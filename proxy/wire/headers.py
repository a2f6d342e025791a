"""Which headers go up to the upstream, and which come down to the caller (pure).

Header lists are lists of (name, value) in bytes, in the order of arrival, as ASGI and HTTP libraries hold
them; names of a request are lower-case already.
"""

import re
from collections.abc import Iterable
from typing import Final
from uuid import uuid4

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 7.6.1, with the names that older proxies use."""

FORWARDING: Final = frozenset({b"forwarded", b"x-real-ip", b"via"})
"""Headers that say a proxy stands in between, beside all of `x-forwarded-`."""

OPENAI_ACCOUNT: Final = frozenset({b"openai-organization", b"openai-project"})
"""Name the caller's own account at OpenAI; they go up only to upstreams with `forward_openai_account`."""

_NEVER_UP: Final = HOP_BY_HOP | {
    b"accept-encoding",  # asked anew: identity
    b"api-key",
    b"authorization",
    b"content-length",  # set anew from the body
    b"cookie",
    b"expect",  # answered here
    b"forwarded",
    b"host",
    b"origin",
    b"referer",
    b"x-api-key",
    b"x-request-id",  # ours is sent
    # Servers take the caller's address from these,
    b"cf-connecting-ip",
    b"fastly-client-ip",
    b"true-client-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-forwarded",
    b"x-real-ip",
    # and these replace the path or method that was checked here.
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-rewrite-url",
}
_NEVER_UP_PREFIXES: Final = (b"access-control-request-", b"proxy-", b"x-forwarded-", b"x-original-")

_NEVER_DOWN: Final = HOP_BY_HOP | {
    b"date",
    b"server",
    b"x-request-id",
    # Meant for a browser that visits the upstream's own site:
    b"alt-svc",
    b"clear-site-data",
    b"content-security-policy",
    b"content-security-policy-report-only",
    b"nel",
    b"public-key-pins",
    b"refresh",
    b"report-to",
    b"reporting-endpoints",
    b"service-worker-allowed",
    b"set-cookie",
    b"set-cookie2",
    b"strict-transport-security",
    b"timing-allow-origin",
    b"x-content-type-options",
    # Instructions to a web server in front, which would take them for ours:
    b"surrogate-control",
    b"x-lighttpd-send-file",
    b"x-reproxy-url",
    b"x-sendfile",
}
_NEVER_DOWN_PREFIXES: Final = (b"access-control-", b"x-accel-")

RELAYED_HEADERS: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox"),
]
"""Keep a browser from running what an upstream sends as a page of this origin."""
EVENT_STREAM_HEADERS: Final[Headers] = [
    (b"cache-control", b"no-store, no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
"""Keep caches, compressors and nginx from holding a stream back."""
_NOT_STORED: Final = (b"cache-control", b"no-store")

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def request_headers(arrived: Iterable[tuple[bytes, bytes]], *, request_id: str) -> Headers:
    """The caller's headers as they go up, without what belongs to this hop or to the caller alone."""
    arrived = list(arrived)
    dropped = _NEVER_UP | {with_hyphens(name) for name in _named_by_connection(arrived)}
    up = []
    for name, value in arrived:
        spelled = with_hyphens(name)
        if spelled not in dropped and not spelled.startswith(_NEVER_UP_PREFIXES):
            up.append((name, value))
    up.append((b"accept-encoding", b"identity"))
    up.append((b"x-request-id", request_id.encode()))
    return up


def response_headers(arrived: Iterable[tuple[bytes, bytes]], *, event_stream: bool) -> Headers:
    """The upstream's headers as they come down; a stream's forbid every cache and buffer on the way.

    Other answers are not stored either, unless the upstream says how.
    """
    arrived = [(name.lower(), value) for name, value in arrived]
    dropped = _NEVER_DOWN | _named_by_connection(arrived)
    if event_stream:
        dropped |= {b"cache-control", b"content-length"}
    down = [
        (name, value)
        for name, value in arrived
        if name not in dropped and not name.startswith(_NEVER_DOWN_PREFIXES)
    ]
    if event_stream:
        down += EVENT_STREAM_HEADERS
    elif find_header(down, b"cache-control") is None:
        down.append(_NOT_STORED)
    return down + RELAYED_HEADERS


def find_header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of a header, by its lower-case name."""
    for key, value in headers:
        if key == name or key.lower() == name:
            return value
    return None


def with_hyphens(name: bytes) -> bytes:
    """A header's name as servers read it that make no difference between `_` and `-` (CGI, WSGI)."""
    return name.replace(b"_", b"-")


def media_type(content_type: bytes | None) -> bytes:
    """The type without its parameters, in lower case: `text/event-stream`."""
    return (content_type or b"").partition(b";")[0].strip().lower()


def is_forwarded(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the request came through another proxy, by its own account."""
    names = [with_hyphens(name) for name, _ in headers]
    return any(name in FORWARDING or name.startswith(b"x-forwarded-") for name in names)


def is_preflight(method: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a browser asks whether a page may send a request (https://fetch.spec.whatwg.org/)."""
    return method == "OPTIONS" and find_header(headers, b"access-control-request-method") is not None


def choose_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The caller's `x-request-id` where it is harmless in a log, else a new one."""
    offered = find_header(headers, b"x-request-id")
    if offered is not None and _REQUEST_ID.fullmatch(offered):
        return offered.decode()
    return uuid4().hex


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    return frozenset(
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    )
