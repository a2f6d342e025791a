"""Check which host a browser's request names, and which page sent it (pure).

Any page that a browser opens can send requests to services on the browser's own machine. Two headers that
pages cannot forge protect such a service:

- `Host` holds the name in the address bar. A page that rebinds its own DNS name to 127.0.0.1 still sends that
  name, so a loopback service accepts only loopback names and the names that its operator lists.
- `Origin` (or, if a browser omits it, `Sec-Fetch-Site`) identifies the page that sends the request.

See https://fetch.spec.whatwg.org/#origin-header and https://www.w3.org/TR/fetch-metadata/.
"""

import ipaddress
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from proxy.wire.headers import DEFAULT_PORTS, Headers

ANY: Final = "*"

_FOREIGN_SITES: Final = frozenset({b"cross-site", b"same-site"})


class Site(NamedTuple):
    """A host name in lower case, and the port if one is given."""

    name: str
    port: int | None


def parse_host(value: bytes) -> Site | None:
    """Parse a Host header: `name`, `name:port` or `[address]:port`; None if it is malformed."""
    return parse_origin(b"//" + value)


def parse_origin(value: bytes) -> Site | None:
    """Parse an Origin header; None if it names no host, as `null` does."""
    try:
        parts = urlsplit(value.decode("ascii").lower())
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or "@" in parts.netloc or parts.path or parts.query or parts.fragment:
        return None
    return Site(parts.hostname.removesuffix("."), port or DEFAULT_PORTS.get(parts.scheme))


def is_loopback_name(name: str) -> bool:
    """Whether every browser resolves a name to its own machine: `localhost` or a loopback address."""
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 6.3
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def names_own_host(headers: Iterable[tuple[bytes, bytes]], hosts: Collection[str]) -> bool:
    """Whether a request names a loopback host or one of `hosts`. `"*"` in `hosts` accepts any name."""
    if ANY in hosts:
        return True
    values = [value for name, value in headers if name == b"host"]
    sites = [parse_host(value) for value in values]
    return bool(sites) and all(
        site is not None and (is_loopback_name(site.name) or site.name in hosts) for site in sites
    )


def is_from_foreign_page(headers: Headers, origins: Collection[str], *, trusts_loopback: bool) -> bool:
    """Whether a browser sends the request for a page of another site.

    Args:
        headers: The request headers, with names in lower case. The Host has been checked.
        origins: Further origins whose pages may send requests. `"*"` accepts every page.
        trusts_loopback: Whether pages served by this machine, on any port, may send requests.
    """
    if ANY in origins:
        return False
    values = [value for name, value in headers if name == b"origin"]
    if not values:
        return any(name == b"sec-fetch-site" and value in _FOREIGN_SITES for name, value in headers)
    hosts = {parse_host(value) for name, value in headers if name == b"host"} - {None}
    return not all(
        value.decode("latin-1").lower() in origins or _is_own(parse_origin(value), hosts, trusts_loopback)
        for value in values
    )


def _is_own(origin: Site | None, hosts: set[Site | None], trusts_loopback: bool) -> bool:  # noqa: FBT001
    if origin is None:
        return False
    if trusts_loopback and is_loopback_name(origin.name):
        return True
    # A Host without a port means the default port, or a proxy in front that forwards the name alone.
    return origin in hosts or Site(origin.name, None) in hosts
