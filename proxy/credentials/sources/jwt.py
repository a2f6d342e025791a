"""Tokens that we sign ourselves (RFC 7519): nobody is asked for them."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import uuid4

from jwt import PyJWS
from jwt.algorithms import HMACAlgorithm

from proxy.credentials.credential import FetchedToken
from proxy.credentials.sources.request_values import Moment
from proxy.secret import Secret
from proxy.settings import JwtCredential
from proxy.settings.credentials.signing import PrivateKey, is_symmetric, load_private_key

_UNITS_A_SECOND: Final[Mapping[str, int]] = {"seconds": 1, "milliseconds": 1000}


class JwtTokenSource:
    """Signs a token whenever it is asked for one.

    Args:
        section: What it says, and the key.
        clock: Seconds since the epoch.

    Raises:
        ValueError: The key does not fit the algorithm.
    """

    def __init__(self, section: JwtCredential, clock: Callable[[], float] = time.time) -> None:
        self._section = section
        self._clock = clock
        self._key: Secret | PrivateKey = section.key
        if not is_symmetric(section.algorithm):
            self._key = load_private_key(section.key, section.algorithm)
        self._jws = _signer()

    async def fetch(self) -> FetchedToken:
        """Sign one that begins now."""
        now = self._clock()
        section = self._section
        scale = _UNITS_A_SECOND[section.unit]
        issued = int(now * scale)
        expires = issued + section.ttl * scale
        claims = self._filled(section.claims, now)
        claims |= {
            name: at for name, at in ((section.issued_claim, issued), (section.expiry_claim, expires)) if name
        }
        if section.jti:
            claims["jti"] = str(uuid4())
        # The end that is written is cut to whole units: that one counts.
        return FetchedToken(Secret(self._signed(claims, now)), expires / scale - now)

    async def close(self) -> None:
        """Nothing is open."""

    def _signed(self, claims: Mapping[str, Any], now: float) -> str:
        headers = self._filled(self._section.headers, now)
        if self._section.key_id is not None:
            headers["kid"] = self._section.key_id
        key = self._key.reveal().encode() if isinstance(self._key, Secret) else self._key
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return self._jws.encode(payload, key, self._section.algorithm, headers)

    def _filled(self, table: Mapping[str, Any], now: float) -> dict[str, Any]:
        filled: dict[str, Any] = Moment(now=now).fill_json(table)
        return filled


class _SecretOfAnyLength(HMACAlgorithm):
    """HMAC that takes a secret as it is. How long it is, and what it looks like, the gateway decided.

    The library would warn at each signature of one that is shorter than its hash (RFC 7518 3.2).
    """

    def prepare_key(self, key: str | bytes) -> bytes:
        return key.encode() if isinstance(key, str) else key

    def check_key_length(self, key: bytes) -> None:  # noqa: ARG002 - the library's signature
        return None


def _signer() -> PyJWS:
    jws = PyJWS()
    for name, digest in (
        ("HS256", HMACAlgorithm.SHA256),
        ("HS384", HMACAlgorithm.SHA384),
        ("HS512", HMACAlgorithm.SHA512),
    ):
        jws.unregister_algorithm(name)
        jws.register_algorithm(name, _SecretOfAnyLength(digest))
    return jws
