"""Who is calling: a static key, compared in constant time, becomes a Caller."""

import hashlib
import hmac
from collections.abc import Callable, Collection, Iterable
from typing import Final, TypeVar

from proxy.access.caller import Caller
from proxy.access.sites import SiteRules, is_loopback
from proxy.errors import Unauthenticated
from proxy.settings import DEFAULT_CALLER_KEYS, Access
from proxy.settings.access import ORIGINAL_KEY
from proxy.wire.headers import is_forwarded

_OPEN: Final = "open"
"""The name of every caller where no key is required."""
_KEY_HEADERS: Final = frozenset({b"x-api-key", b"api-key"})
_DEFAULT_DIGESTS: Final = frozenset(hashlib.sha256(key.encode()).digest() for key in DEFAULT_CALLER_KEYS)

View = TypeVar("View", bound=Callable[..., object])


class AccessControl:
    """Check the key of a request.

    Args:
        settings: The `[access]` section.
        origins: Pages of other sites that may call, see `[cors]`.
    """

    def __init__(self, settings: Access, origins: Collection[str] = ()) -> None:
        self.sites = SiteRules(settings.hosts, origins)
        self._is_open = settings.mode == "open"
        callers = [Caller.of(key) for key in settings.keys]
        self._by_name = {caller.name: caller for caller in callers}
        self._keys = [(key.digest, caller) for key, caller in zip(settings.keys, callers, strict=True)]
        self._open_caller = self.caller_by_name(_OPEN)

    def caller_by_name(self, name: str) -> Caller:
        """Return the caller of this name, without limits if no key has the name."""
        return self._by_name.get(name) or Caller(name)

    def identify(
        self, headers: Iterable[tuple[bytes, bytes]], client: str | None, local: str | None
    ) -> Caller:
        """Return the caller behind a request.

        Args:
            headers: The request headers, with names in lower case.
            client: Address of the peer.
            local: Address at which the connection arrived.

        Raises:
            Unauthenticated: No key, an unknown one, two different ones, or a default key of a caller that
                is not a program on this machine.
            SiteForbidden: No key is required, and a web page of another site sent the request.
        """
        headers = list(headers)
        if self._is_open:
            self.sites.check_host(headers, local)
            self.sites.check_page(headers, local)
            return self._open_caller
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


def public(view: View) -> View:
    """Mark a view that needs no key."""
    view.is_public = True  # type: ignore[attr-defined]  # a function accepts any attribute
    return view


def is_public(view: Callable[..., object]) -> bool:
    """Whether a view is marked with `public`."""
    return getattr(view, "is_public", False)


def _presented_key(headers: list[tuple[bytes, bytes]]) -> bytes:
    presented = set()
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme and scheme.lower() != b"bearer":
                raise Unauthenticated(reason="the Authorization header does not begin with Bearer")
            presented.add(key.strip())
        elif name in _KEY_HEADERS:
            presented.add(value.strip())
    if len(presented) != 1 or b"" in presented:
        raise Unauthenticated(reason="two different keys" if len(presented) > 1 else "no key")
    return presented.pop()
