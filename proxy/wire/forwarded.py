"""Who stands behind the proxies in front of us, as far as they can be believed (pure).

X-Forwarded-For grows at its right end, one address a proxy; whatever a caller writes into it stands further
left than what our own proxies add. So it is read from the right, and the first address that is none of our
proxies is the caller's: https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/X-Forwarded-For.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

from proxy.wire.headers import Headers

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

UNKNOWN: Final = "unknown"
"""Of a peer without an address, such as one at a Unix socket, who names none."""
_VISITOR_PREFIX: Final = 64
"""Bits that tell one IPv6 visitor from another: the rest is theirs to choose."""


class TrustedProxies:
    """The proxies that are believed.

    Args:
        networks: Addresses and networks, such as `10.0.0.0/8`.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]

    def trusts(self, peer: str | None) -> bool:
        """Whether a peer is one of them. A Unix socket, which has no address, is this machine's own."""
        address = _parse(peer or "")
        if address is None:
            return not peer and bool(self._networks)
        return any(address in network for network in self._networks)

    def visitor(self, peer: str | None, headers: Headers) -> str:
        """The address that a visitor is counted by: the whole of IPv4, the network part of IPv6."""
        found = _parse(peer or "")
        if self.trusts(peer):
            for entry in reversed([*_entries(headers, b"x-forwarded-for")]):
                address = _parse(entry)
                if address is None:
                    break  # what stands further left cannot be believed either
                found = address
                if not self.trusts(str(address)):
                    break
        if found is None:
            return UNKNOWN
        if isinstance(found, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((found, _VISITOR_PREFIX), strict=False))
        return str(found)

    def is_secure(self, scheme: str, peer: str | None, headers: Headers) -> bool:
        """Whether the visitor's own connection is TLS, as the proxy next to us says it is."""
        if scheme == "https":
            return True
        schemes = [*_entries(headers, b"x-forwarded-proto")] if self.trusts(peer) else []
        return bool(schemes) and schemes[-1].lower() == "https"

    def hosts(self, peer: str | None, headers: Headers) -> set[str]:
        """The names, with their ports, under which the visitor may know us; in lower case."""
        names = {value for name in (b"host", b"x-forwarded-host") for value in _entries(headers, name)}
        if not self.trusts(peer):
            names = {*_entries(headers, b"host")}
        return {name.lower() for name in names}


def _entries(headers: Headers, name: bytes) -> Iterator[str]:
    """The members of a list header, in the order of all its lines."""
    for key, value in headers:
        if key == name:
            yield from (part.strip() for part in value.decode("latin-1").split(","))


def _parse(text: str) -> _Address | None:
    """An address, with or without brackets and port; an IPv4 address that is dressed as IPv6 is undressed."""
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
