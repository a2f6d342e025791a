"""Which headers are forwarded to the upstream, and which are returned to the caller (pure).

Headers are lists of (name, value) in bytes, in the order received, as in ASGI and in HTTP libraries. Names
of request headers are in lower case.
"""

import random
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

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
"""Headers that a proxy adds, besides those that begin with `x-forwarded-`."""

OPENAI_ACCOUNT: Final = frozenset({b"openai-organization", b"openai-project"})
"""The caller's account at OpenAI. Forwarded only to upstreams with `forward_openai_account`."""

NOT_FORWARDED: Final = HOP_BY_HOP | {
    b"accept-encoding",  # replaced by identity
    b"api-key",
    b"authorization",
    b"content-length",  # set from the forwarded body
    b"cookie",
    b"expect",  # answered by the server
    b"forwarded",
    b"host",
    b"origin",
    b"referer",
    b"x-api-key",
    b"x-request-id",  # replaced by ours
    # Servers read the caller's address from these:
    b"cf-connecting-ip",
    b"fastly-client-ip",
    b"true-client-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-forwarded",
    b"x-real-ip",
    # Servers replace the path or the method, which we have checked, by these:
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-rewrite-url",
    # Gateways send the request, with our token, to the address in these:
    b"helicone-openai-api-base",
    b"helicone-target-url",
    b"x-portkey-custom-host",
}
_NOT_FORWARDED_PREFIXES: Final = (b"access-control-request-", b"proxy-", b"x-forwarded-", b"x-original-")

NOT_RETURNED: Final = HOP_BY_HOP | {
    b"date",
    b"server",
    b"x-request-id",
    # Instructions to a browser on the upstream's own site:
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
    # Instructions to a web server in front of us, which would obey them as ours:
    b"surrogate-control",
    b"x-lighttpd-send-file",
    b"x-reproxy-url",
    b"x-sendfile",
}
_NOT_RETURNED_IN_STREAMS: Final = NOT_RETURNED | {b"cache-control", b"content-length"}
_NOT_RETURNED_PREFIXES: Final = (b"access-control-", b"x-accel-")

RELAYED_HEADERS: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox"),
]
"""Keep a browser from running an upstream's response as a page of our origin."""
EVENT_STREAM_HEADERS: Final[Headers] = [
    (b"cache-control", b"no-store, no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
"""Keep caches, compressors and nginx from delaying a stream."""
_NOT_STORED: Final = (b"cache-control", b"no-store")

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_HEADERS_WITH_URLS: Final = frozenset(
    {b"location", b"content-location", b"link", b"operation-location", b"azure-asyncoperation", b"sourcemap"}
)
_URI_REFERENCE: Final = re.compile(r"[!#-;=?-\[\]_a-z~]+")
"""No spaces, quotes, angle brackets or backslashes."""
_ODD_SEGMENT: Final = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|$)|//|%2f|%5c", re.IGNORECASE)
_NO_CODING: Final = frozenset({b"", b"identity"})
_NONE: Final[frozenset[bytes]] = frozenset()
URLS_MAX: Final = 64
SEGMENTS_MAX: Final = 64
"""With more URLs in the headers of a response, or more segments in the path of its request, all these headers
are dropped: each relative URL climbs every segment, so few bytes would take long and become many."""
_LINK_TARGET: Final = re.compile(rb"<([^<>]*)>")
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def request_headers(received: Iterable[tuple[bytes, bytes]], *, request_id: str) -> Headers:
    """Return the headers to send to the upstream: the caller's, without those meant for this proxy alone."""
    received = list(received)
    dropped = NOT_FORWARDED
    if named := _named_by_connection(received):
        dropped = dropped.union(map(with_hyphens, named))
    forwarded = [
        (name, value)
        for name, value in received
        if (spelled := name.replace(b"_", b"-")) not in dropped
        and not spelled.startswith(_NOT_FORWARDED_PREFIXES)
    ]
    return [*forwarded, (b"accept-encoding", b"identity"), (b"x-request-id", request_id.encode())]


def response_headers(received: Iterable[tuple[bytes, bytes]], *, event_stream: bool) -> Headers:
    """Return the headers to send to the caller: the upstream's, without those meant for this proxy alone.

    Streams must be neither cached nor buffered. Other responses are not cached unless the upstream says how.
    """
    received = [(name.lower(), value) for name, value in received]
    dropped = _NOT_RETURNED_IN_STREAMS if event_stream else NOT_RETURNED
    if named := _named_by_connection(received):
        dropped |= named
    returned = [
        (name, value)
        for name, value in received
        if name not in dropped and not name.startswith(_NOT_RETURNED_PREFIXES)
    ]
    if event_stream:
        returned += EVENT_STREAM_HEADERS
    elif find_header(returned, b"cache-control") is None:
        returned.append(_NOT_STORED)
    return returned + RELAYED_HEADERS


def find_header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the first value of a header, by its name in lower case."""
    for key, value in headers:
        if key == name or key.lower() == name:
            return value
    return None


def with_hyphens(name: bytes) -> bytes:
    """Return a header name as CGI and WSGI servers read it, which do not distinguish `_` from `-`.

    Loops over the headers of every request have this expression in themselves.
    """
    return name.replace(b"_", b"-")


def media_type(content_type: bytes | None) -> bytes:
    """Return the media type without parameters, in lower case, such as `text/event-stream`."""
    return (content_type or b"").partition(b";")[0].strip().lower()


def content_coding(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the codings of a body in lower case, from all Content-Encoding headers; empty if it has none."""
    values = [value for name, value in headers if name.lower() == b"content-encoding"]
    if not values:
        return b""
    codings = [coding.strip().lower() for value in values for coding in value.split(b",")]
    return b"" if _NO_CODING.issuperset(codings) else b",".join(codings)


def is_forwarded(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the headers say that the request passed through another proxy."""
    names = [with_hyphens(name) for name, _ in headers]
    return any(name in FORWARDING or name.startswith(b"x-forwarded-") for name in names)


def is_preflight(method: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the request is a CORS preflight (https://fetch.spec.whatwg.org/#cors-preflight-request)."""
    return method == "OPTIONS" and find_header(headers, b"access-control-request-method") is not None


def choose_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the caller's `x-request-id` if it is safe to log, otherwise a new one."""
    offered = find_header(headers, b"x-request-id")
    if offered is not None and _REQUEST_ID.fullmatch(offered):
        return offered.decode()
    return f"{random.getrandbits(128):032x}"  # unique, but no secret


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    lists = [value for name, value in headers if name == b"connection"]
    if not lists:
        return _NONE
    return frozenset(token.strip().lower() for value in lists for token in value.split(b","))


# --- URLs in response headers


def relocate(headers: Headers, base_url: str, path: bytes) -> Headers:
    """Rewrite the URLs in an upstream's headers so that the caller can use them.

    Such a URL names the upstream, whose address means nothing to the caller and should not be revealed. A URL
    below the upstream's base URL becomes relative to the request; a header with any other URL is dropped, and
    so are all of them beyond `URLS_MAX` and `SEGMENTS_MAX`.

    Args:
        headers: The response headers, with names in any case.
        base_url: The upstream's base URL.
        path: The path of the request below the base URL, with its leading slash.
    """
    if _HEADERS_WITH_URLS.isdisjoint([name.lower() for name, _ in headers]):
        return headers
    urls = sum(value.count(b"<") or 1 for name, value in headers if name.lower() in _HEADERS_WITH_URLS)
    if urls > URLS_MAX or path.count(b"/") > SEGMENTS_MAX:
        return [(name, value) for name, value in headers if name.lower() not in _HEADERS_WITH_URLS]
    kept: Headers = []
    for name, value in headers:
        new: bytes | None = value
        if name.lower() == b"link":
            new = _relocate_links(value, base_url, path)
        elif name.lower() in _HEADERS_WITH_URLS:
            new = relative_reference(value, base_url, path)
        if new is not None:
            kept.append((name, new))
    return kept


def relative_reference(value: bytes, base_url: str, path: bytes) -> bytes | None:
    """Return a URL relative to the request; None if it is not below the base URL."""
    reference, request = value.decode("latin-1").strip(" \t"), path.decode("latin-1")
    if not _URI_REFERENCE.fullmatch(reference):
        return None
    try:
        found, base = urlsplit(urljoin(base_url.rstrip("/") + request, reference)), urlsplit(base_url)
        if _origin(found) != _origin(base):
            return None
    except ValueError:
        return None
    base_path = base.path.rstrip("/")
    if not found.path.startswith(base_path + "/") or _ODD_SEGMENT.search(found.path):
        return None
    below = found.path[len(base_path) + 1 :]
    up = "../" * (request.count("/") - 1)
    rest = (f"?{found.query}" if found.query else "") + (f"#{found.fragment}" if found.fragment else "")
    return ((up or "./") + below + rest).encode("latin-1")


def _origin(url: SplitResult) -> tuple[str, str | None, str | None, int | None]:
    return url.scheme, url.username, url.hostname, url.port or DEFAULT_PORTS.get(url.scheme)


def _relocate_links(value: bytes, base_url: str, path: bytes) -> bytes | None:
    """Make each target of a Link header (RFC 8288) relative; None if one is not below the base URL."""
    targets = [relative_reference(target, base_url, path) for target in _LINK_TARGET.findall(value)]
    if not targets or None in targets or b"//" in _LINK_TARGET.sub(b"", value):
        return None
    remaining = iter([target for target in targets if target is not None])
    return _LINK_TARGET.sub(lambda _: b"<" + next(remaining) + b">", value)
