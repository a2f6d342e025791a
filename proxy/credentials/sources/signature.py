"""Signed JWTs (RFC 7515, RFC 7519): the one place that knows the library which signs them."""

import json
from collections.abc import Mapping
from typing import Any

from jwt import PyJWS
from jwt.algorithms import HMACAlgorithm

from proxy.secret import Secret
from proxy.settings.credentials.jwt import PrivateKey, is_symmetric, load_private_key


class Signer:
    """Signs with one key by one algorithm.

    Args:
        key: A PEM, or for HMAC the secret as it is.
        algorithm: Any JWS algorithm (RFC 7518 3.1) that the settings know.

    Raises:
        ValueError: The key does not fit the algorithm.
    """

    def __init__(self, key: Secret, algorithm: str) -> None:
        self._algorithm = algorithm
        self._key: Secret | PrivateKey = key
        if not is_symmetric(algorithm):
            self._key = load_private_key(key, algorithm)
        self._jws = _jws()

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any]) -> str:
        """Return the compact form; `typ` and `alg` are added to the header."""
        key = self._key.reveal().encode() if isinstance(self._key, Secret) else self._key
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return self._jws.encode(payload, key, self._algorithm, {**header})


class _SecretOfAnyLength(HMACAlgorithm):
    """HMAC that takes a secret as it is. Its length and its look are the issuer's decision.

    The library would warn at each signature of one that is shorter than its hash (RFC 7518 3.2).
    """

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
