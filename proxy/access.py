"""Who is calling: a static key, compared in constant time, becomes a Caller."""

import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from proxy.errors import Unauthenticated
from proxy.settings import DEFAULT_CALLER_KEYS, Access
from proxy.wire.headers import is_forwarded

_KEY_HEADERS: Final = frozenset({b"x-api-key", b"api-key"})
_DEFAULT_DIGESTS: Final = frozenset(hashlib.sha256(key.encode()).digest() for key in DEFAULT_CALLER_KEYS)

View = TypeVar("View", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling, by the name that the key has in the configuration."""

    name: str


OPEN_CALLER: Final = Caller("open")


class AccessControl:
    """Check the key of a request.

    Args:
        settings: The `[access]` section.
    """

    def __init__(self, settings: Access) -> None:
        self._open = settings.mode == "open"
        self._keys = [(key.digest, Caller(key.name)) for key in settings.keys]

    def identify(self, headers: Iterable[tuple[bytes, bytes]], client: str | None) -> Caller:
        """The caller behind a request.

        Args:
            headers: As they arrived, names in lower case.
            client: Address of the peer.

        Raises:
            Unauthenticated: no key, an unknown one, two different ones, or a default key from elsewhere.
        """
        if self._open:
            return OPEN_CALLER
        headers = list(headers)
        digest = hashlib.sha256(_presented_key(headers)).digest()
        found: Caller | None = None
        for known, caller in self._keys:  # all of them, always: the time tells nothing
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise Unauthenticated(reason="unknown key")
        if digest in _DEFAULT_DIGESTS and (is_forwarded(headers) or not is_loopback(client)):
            # Everybody knows these keys: they are good for a direct caller on this machine only.
            raise Unauthenticated(reason="a default key is good for direct loopback callers only")
        return found


def uses_default_keys(settings: Access) -> bool:
    """Whether a key of the runnable default is configured, in plain or hashed."""
    return any(key.digest in _DEFAULT_DIGESTS for key in settings.keys)


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
