"""Find a visitor's address behind trusted proxies (pure).

Each proxy appends the address of its peer to X-Forwarded-For, so anything that the visitor wrote is further
left than the entries of trusted proxies. Reading from the right, the first address that is not a trusted
proxy is the visitor's: https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/X-Forwarded-For.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

from proxy.wire.headers import Headers

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

UNKNOWN: Final = "unknown"
"""The address of a peer without one, such as a Unix socket, that forwards none."""
_VISITOR_PREFIX: Final = 64
"""The bits of an IPv6 address that identify a visitor, who can choose the other bits freely."""


class TrustedProxies:
    """The proxies whose forwarding headers are trusted.

    Args:
        networks: Addresses and networks, such as `10.0.0.0/8`.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]

    def trusts(self, peer: str | None) -> bool:
        """Whether a peer is a trusted proxy. A Unix socket, which has no address, is trusted."""
        address = _parse(peer or "")
        if address is None:
            return not peer and bool(self._networks)
        return any(address in network for network in self._networks)

    def visitor(self, peer: str | None, headers: Headers) -> str:
        """Return the address that identifies a visitor: a whole IPv4 address, or the network part of IPv6."""
        found = _parse(peer or "")
        if self.trusts(peer):
            for entry in reversed([*_entries(headers, b"x-forwarded-for")]):
                address = _parse(entry)
                if address is None:
                    break  # The entries further left cannot be trusted either.
                found = address
                if not self.trusts(str(address)):
                    break
        if found is None:
            return UNKNOWN
        if isinstance(found, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((found, _VISITOR_PREFIX), strict=False))
        return str(found)

    def is_secure(self, scheme: str, peer: str | None, headers: Headers) -> bool:
        """Whether the visitor's own connection uses TLS, according to the nearest proxy."""
        if scheme == "https":
            return True
        schemes = [*_entries(headers, b"x-forwarded-proto")] if self.trusts(peer) else []
        return bool(schemes) and schemes[-1].lower() == "https"

    def hosts(self, peer: str | None, headers: Headers) -> set[str]:
        """Return the host names and ports, in lower case, that the visitor may have used."""
        names = {value for name in (b"host", b"x-forwarded-host") for value in _entries(headers, name)}
        if not self.trusts(peer):
            names = {*_entries(headers, b"host")}
        return {name.lower() for name in names}


def _entries(headers: Headers, name: bytes) -> Iterator[str]:
    """Yield the items of a list header, from all its lines in order."""
    for key, value in headers:
        if key == name:
            yield from (part.strip() for part in value.decode("latin-1").split(","))


def _parse(text: str) -> _Address | None:
    """Parse an address with or without brackets and port, and turn an IPv4-mapped IPv6 address into IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
