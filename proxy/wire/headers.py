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

_NEVER_UP: Final = HOP_BY_HOP | {
    b"accept-encoding",  # asked anew: identity
    b"api-key",
    b"authorization",
    b"content-length",  # set anew from the body
    b"cookie",
    b"expect",  # answered here
    b"forwarded",
    b"host",
    b"openai-organization",
    b"openai-project",
    b"origin",
    b"referer",
    b"x-api-key",
    b"x-real-ip",
    b"x-request-id",  # ours is sent
}
_NEVER_UP_PREFIXES: Final = (b"x-forwarded-", b"proxy-")

_NEVER_DOWN: Final = HOP_BY_HOP | {
    b"alt-svc",
    b"date",
    b"server",
    b"set-cookie",
    b"strict-transport-security",
    b"x-request-id",
}

EVENT_STREAM_HEADERS: Final[Headers] = [
    (b"cache-control", b"no-store, no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
"""Keep caches, compressors and nginx from holding a stream back."""

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def request_headers(arrived: Iterable[tuple[bytes, bytes]], *, request_id: str) -> Headers:
    """The caller's headers as they go up, without what belongs to this hop or to the caller alone."""
    arrived = list(arrived)
    named = _named_by_connection(arrived)
    up = [
        (name, value)
        for name, value in arrived
        if name not in _NEVER_UP and name not in named and not name.startswith(_NEVER_UP_PREFIXES)
    ]
    up.append((b"accept-encoding", b"identity"))
    up.append((b"x-request-id", request_id.encode()))
    return up


def response_headers(arrived: Iterable[tuple[bytes, bytes]], *, event_stream: bool) -> Headers:
    """The upstream's headers as they come down; a stream's forbid every cache and buffer on the way."""
    arrived = [(name.lower(), value) for name, value in arrived]
    dropped = _NEVER_DOWN | _named_by_connection(arrived)
    if event_stream:
        dropped |= {b"cache-control", b"x-accel-buffering", b"content-length"}
    down = [(name, value) for name, value in arrived if name not in dropped]
    if event_stream:
        down.extend(EVENT_STREAM_HEADERS)
    return down


def find_header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of a header, by its lower-case name."""
    for key, value in headers:
        if key == name or key.lower() == name:
            return value
    return None


def media_type(content_type: bytes | None) -> bytes:
    """The type without its parameters, in lower case: `text/event-stream`."""
    return (content_type or b"").partition(b";")[0].strip().lower()


def is_forwarded(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the request came through another proxy, by its own account."""
    return any(name in FORWARDING or name.startswith(b"x-forwarded-") for name, _ in headers)


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
