"""Who is calling: a static key, compared in constant time, becomes a Caller."""

import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from proxy.errors import SiteForbidden, Unauthenticated
from proxy.settings import DEFAULT_CALLER_KEYS, Access
from proxy.settings.access import ORIGINAL_KEY
from proxy.wire.headers import Headers, is_forwarded
from proxy.wire.site import ANY, is_from_foreign_page, names_own_host

_KEY_HEADERS: Final = frozenset({b"x-api-key", b"api-key"})
_DEFAULT_DIGESTS: Final = frozenset(hashlib.sha256(key.encode()).digest() for key in DEFAULT_CALLER_KEYS)

_UNKNOWN_HOST: Final = (
    "this service is on a loopback address and does not know the host name of the request; "
    "add the name to hosts in [access]"
)

View = TypeVar("View", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling, by the name that the key has in the configuration."""

    name: str


OPEN_CALLER: Final = Caller("open")


class SiteRules:
    """Keep web pages from using a service that asks for no secret.

    A browser reaches every loopback address of its machine, and lets every page send simple requests there. A
    caller's own key keeps pages out; open mode, the public default keys and the chat have no such secret.

    Args:
        hosts: Names that `Host` may hold beside loopback ones.
        origins: Pages of other sites that may send requests.
    """

    def __init__(self, hosts: Collection[str], origins: Collection[str] = ()) -> None:
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origins)

    def check_host(self, headers: Headers, local: str | None) -> None:
        """Refuse a foreign host name on a loopback connection: the sign of DNS rebinding.

        Args:
            headers: As they arrived, names in lower case.
            local: The address at which the connection arrived; None for a Unix socket.

        Raises:
            SiteForbidden
        """
        if is_loopback(local) and not names_own_host(headers, self._hosts):
            raise SiteForbidden(_UNKNOWN_HOST, reason="the Host header names no host of this service")

    def check_page(self, headers: Headers, local: str | None) -> None:
        """Refuse what a browser sends for a page of another site. Its host must be checked first.

        Raises:
            SiteForbidden
        """
        if is_from_foreign_page(headers, self._origins, trusts_loopback=is_loopback(local)):
            raise SiteForbidden(reason="a browser sent it for a page of another site")

    def accept(self, headers: Headers) -> bool:
        """Return whether both rules hold, and ignore wildcards: they are no consent to public keys."""
        if is_from_foreign_page(headers, self._origins - {ANY}, trusts_loopback=True):
            return False
        return names_own_host(headers, self._hosts - {ANY})


class AccessControl:
    """Check the key of a request.

    Args:
        settings: The `[access]` section.
        origins: Pages of other sites that may call, see `[cors]`.
    """

    def __init__(self, settings: Access, origins: Collection[str] = ()) -> None:
        self.sites = SiteRules(settings.hosts, origins)
        self._open = settings.mode == "open"
        self._keys = [(key.digest, Caller(key.name)) for key in settings.keys]

    def identify(
        self, headers: Iterable[tuple[bytes, bytes]], client: str | None, local: str | None
    ) -> Caller:
        """Return the caller behind a request.

        Args:
            headers: As they arrived, names in lower case.
            client: Address of the peer.
            local: Address at which the connection arrived.

        Raises:
            Unauthenticated: no key, an unknown one, two different ones, or a default key of a caller that
                is no program on this machine.
            SiteForbidden: no key is required, and a web page of another site sent the request.
        """
        headers = list(headers)
        if self._open:
            self.sites.check_host(headers, local)
            self.sites.check_page(headers, local)
            return OPEN_CALLER
        digest = hashlib.sha256(_presented_key(headers)).digest()
        found: Caller | None = None
        for known, caller in self._keys:  # Compare with every key, so that timing reveals nothing.
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise Unauthenticated(reason="unknown key")
        if digest in _DEFAULT_DIGESTS:
            # The default keys are public: they authenticate only programs on this machine.
            if is_forwarded(headers) or not is_loopback(client):
                raise Unauthenticated(reason="a default key is valid for direct loopback callers only")
            if not self.sites.accept(headers):
                raise Unauthenticated(reason="a default key is not valid for web pages of other sites")
        return found


def uses_default_keys(settings: Access) -> bool:
    """Whether a key of the runnable default is configured, in plain or hashed."""
    return any(key.digest in _DEFAULT_DIGESTS for key in settings.keys)


def uses_original_key(settings: Access) -> bool:
    """Whether the key of the Flask original is configured, in plain or hashed."""
    original = hashlib.sha256(ORIGINAL_KEY.encode()).digest()
    return any(key.digest == original for key in settings.keys)


def is_loopback(address: str | None) -> bool:
    """Whether an address is this machine's own; a Unix socket, which has none, is not."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address == "localhost"
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def public(view: View) -> View:
    """Mark a view that needs no key."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def is_public(view: Callable[..., object]) -> bool:
    """Whether a view is marked so."""
    return getattr(view, "is_public", False)


def _presented_key(headers: list[tuple[bytes, bytes]]) -> bytes:
    presented = set()
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            presented.add(key.strip() if scheme.lower() == b"bearer" else b"")
        elif name in _KEY_HEADERS:
            presented.add(value.strip())
    if len(presented) != 1 or b"" in presented:
        raise Unauthenticated(reason="two different keys" if len(presented) > 1 else "no key")
    return presented.pop()
