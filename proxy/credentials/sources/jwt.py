"""Sign JWTs (RFC 7515, RFC 7519): tokens that the proxy issues itself, and assertions."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Final
from uuid import uuid4

from jwt import PyJWS
from jwt.algorithms import HMACAlgorithm

from proxy.credentials.sources import TokenSource
from proxy.credentials.sources.request_values import Moment
from proxy.credentials.token import FetchedToken
from proxy.secret import Secret
from proxy.settings import JwtCredential
from proxy.settings.credentials.jwt import is_symmetric
from proxy.settings.credentials.private_keys import PrivateKey, load_private_key


class Signer:
    """Signs with one key by one algorithm.

    Args:
        key: A PEM, or the secret for HMAC.
        algorithm: object JWS algorithm (RFC 7518 3.1) that the settings accept.

    Raises:
        ValueError: The key does not fit the algorithm.
    """

    def __init__(self, key: Secret, algorithm: str) -> None:
        self._algorithm = algorithm
        self._key: Secret | PrivateKey = key
        if not is_symmetric(algorithm):
            self._key = load_private_key(key, algorithm)
        self._jws = _jws()

    def sign(self, claims: Mapping[str, object], header: Mapping[str, object]) -> str:
        """Return the compact serialization; `typ` and `alg` are added to the header."""
        key = self._key.reveal().encode() if isinstance(self._key, Secret) else self._key
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return self._jws.encode(payload, key, self._algorithm, {**header})


class _SecretOfAnyLength(HMACAlgorithm):
    """HMAC with any secret. The issuer decides on its length; the library would warn about short ones."""

    def prepare_key(self, key: str | bytes) -> bytes:
        return key.encode() if isinstance(key, str) else key

    def check_key_length(self, key: bytes) -> None:  # noqa: ARG002 - the library's signature
        return None


def _jws() -> PyJWS:
    jws = PyJWS()
    for name, digest in (
        ("HS256", HMACAlgorithm.SHA256),
        ("HS384", HMACAlgorithm.SHA384),
        ("HS512", HMACAlgorithm.SHA512),
    ):
        jws.unregister_algorithm(name)
        jws.register_algorithm(name, _SecretOfAnyLength(digest))
    return jws


_UNITS_PER_SECOND: Final[Mapping[str, int]] = {"seconds": 1, "milliseconds": 1000}


class JwtTokenSource(TokenSource):
    """Signs a new token for each fetch.

    Args:
        section: The key, and the headers and claims of the tokens.
        clock: Returns seconds since the epoch.

    Raises:
        ValueError: The key does not fit the algorithm.
    """

    def __init__(self, section: JwtCredential, clock: Callable[[], float] = time.time) -> None:
        self._section = section
        self._clock = clock
        self._signer = Signer(section.key, section.algorithm)

    async def fetch(self) -> FetchedToken:
        """Sign a token that is valid from now on."""
        now = self._clock()
        section = self._section
        scale = _UNITS_PER_SECOND[section.unit]
        issued = int(now * scale)
        expires = issued + section.ttl * scale
        claims = self._filled(section.claims, now)
        claims |= {
            name: at for name, at in ((section.issued_claim, issued), (section.expiry_claim, expires)) if name
        }
        if section.jti:
            claims["jti"] = str(uuid4())
        # The expiry in the token is cut to whole units, and the gateway compares it with its own clock.
        return FetchedToken(Secret(self._signed(claims, now)), expires / scale - now, certain=False)

    def _signed(self, claims: Mapping[str, object], now: float) -> str:
        headers = self._filled(self._section.headers, now)
        if self._section.key_id is not None:
            headers["kid"] = self._section.key_id
        return self._signer.sign(claims, headers)

    def _filled(self, table: Mapping[str, object], now: float) -> dict[str, object]:
        return Moment(now=now).fill_members(table)
