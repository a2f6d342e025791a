"""URLs in an upstream's headers, as the caller can use them (pure).

An upstream names its resources by its own address, which means nothing to the caller and shows what is
behind the proxy. A URL below the upstream's base URL becomes a reference relative to the request; any other
is dropped.
"""

import re
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

Headers = list[tuple[bytes, bytes]]

_ONE_URL: Final = frozenset({b"location", b"content-location"})
_LINK: Final = b"link"
_PLAIN: Final = re.compile(r"[!#-;=?-\[\]_a-z~]+")
"""What a URI reference may consist of: no spaces, quotes, angle brackets or backslashes."""
_ODD_SEGMENT: Final = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|$)|//|%2f|%5c", re.IGNORECASE)
_TARGET: Final = re.compile(rb"<([^<>]*)>")
_PORTS: Final = {"http": 80, "https": 443}


def relocate(headers: Headers, base_url: str, path: bytes) -> Headers:
    """Make the URLs in headers relative to the request, or drop the header.

    Args:
        headers: An answer's, with names in any case.
        base_url: The upstream's base URL.
        path: The request's path below it, with its leading slash.
    """
    if not any(name.lower() in _ONE_URL or name.lower() == _LINK for name, _ in headers):
        return headers
    kept: Headers = []
    for name, value in headers:
        lower = name.lower()
        new: bytes | None = value
        if lower in _ONE_URL:
            new = relative_reference(value, base_url, path)
        elif lower == _LINK:
            new = _relocate_links(value, base_url, path)
        if new is not None:
            kept.append((name, new))
    return kept


def relative_reference(value: bytes, base_url: str, path: bytes) -> bytes | None:
    """The same resource as seen from the request; None for one that is not below the base URL."""
    reference, request = value.decode("latin-1").strip(" \t"), path.decode("latin-1")
    if not _PLAIN.fullmatch(reference):
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
    return url.scheme, url.username, url.hostname, url.port or _PORTS.get(url.scheme)


def _relocate_links(value: bytes, base_url: str, path: bytes) -> bytes | None:
    """Make each target of a Link header (RFC 8288) relative; None if one of them is not below the base."""
    targets = [relative_reference(target, base_url, path) for target in _TARGET.findall(value)]
    if not targets or None in targets or b"//" in _TARGET.sub(b"", value):
        return None
    left = iter([target for target in targets if target is not None])
    return _TARGET.sub(lambda _: b"<" + next(left) + b">", value)
