"""Which web pages and host names may use a service that asks for no secret."""

import ipaddress
from collections.abc import Collection
from typing import Final

from proxy.errors import SiteForbidden
from proxy.wire.headers import Headers
from proxy.wire.site import ANY, is_from_foreign_page, names_own_host

_UNKNOWN_HOST: Final = (
    "this service is on a loopback address and does not know the host name of the request; "
    "add the name to hosts in [access]"
)


class SiteRules:
    """Keep web pages from using a service that asks for no secret.

    A browser reaches every loopback address of its machine, and lets every page send simple requests there. A
    caller's own key keeps pages out; open mode, the public default keys and the chat have no such secret.

    Args:
        hosts: Names that `Host` may contain in addition to loopback ones.
        origins: Pages of other sites that may send requests.
    """

    def __init__(self, hosts: Collection[str], origins: Collection[str] = ()) -> None:
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origins)

    def check_host(self, headers: Headers, local: str | None) -> None:
        """Reject a foreign host name on a loopback connection: the sign of DNS rebinding.

        Args:
            headers: The request headers, with names in lower case.
            local: The address at which the connection arrived; None for a Unix socket.

        Raises:
            SiteForbidden
        """
        if is_loopback(local) and not names_own_host(headers, self._hosts):
            raise SiteForbidden(_UNKNOWN_HOST, reason="the Host header names no host of this service")

    def check_page(self, headers: Headers, local: str | None) -> None:
        """Reject what a browser sends for a page of another site. Its host must be checked first.

        Raises:
            SiteForbidden
        """
        if is_from_foreign_page(headers, self._origins, trusts_loopback=is_loopback(local)):
            raise SiteForbidden(reason="a browser sent it for a page of another site")

    def accept(self, headers: Headers) -> bool:
        """Whether both rules hold without wildcards: a wildcard must not permit the public default keys."""
        if is_from_foreign_page(headers, self._origins - {ANY}, trusts_loopback=True):
            return False
        return names_own_host(headers, self._hosts - {ANY})


def is_loopback(address: str | None) -> bool:
    """Whether an address is this machine's own; a Unix socket, which has none, is not."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address == "localhost"
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
