"""Private keys and certificates in PEM form, and what an algorithm requires of them."""

import base64
from collections.abc import Mapping
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from proxy.secret import Secret

PrivateKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey

RSA_BITS_MIN: Final = 2048
"""RFC 7518 3.3 and 3.5 forbid shorter keys."""
_CURVES: Final[Mapping[str, tuple[str, str]]] = {  # RFC 7518 3.4: the name in the library, and the usual one
    "ES256": ("secp256r1", "P-256"),
    "ES384": ("secp384r1", "P-384"),
    "ES512": ("secp521r1", "P-521"),
}


def load_private_key(pem: Secret, algorithm: str) -> PrivateKey:
    """Read a private key and check that the algorithm can sign with it.

    Args:
        pem: PKCS #8, PKCS #1 or SEC 1, not encrypted.
        algorithm: Any asymmetric JWS algorithm.

    Raises:
        ValueError: The key cannot be used. The message reveals nothing of the key.
    """
    try:
        key = load_pem_private_key(_lines(pem.reveal()), password=None)
    except TypeError:
        raise ValueError("is encrypted: give the key without a pass phrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is not a private key in PEM form, such as -----BEGIN PRIVATE KEY-----") from None
    if isinstance(key, RSAPrivateKey) and algorithm.startswith(("RS", "PS")):
        if key.key_size >= RSA_BITS_MIN:
            return key
    elif isinstance(key, EllipticCurvePrivateKey) and algorithm in _CURVES:
        if key.curve.name == _CURVES[algorithm][0]:
            return key
    elif isinstance(key, Ed25519PrivateKey | Ed448PrivateKey) and algorithm == "EdDSA":
        return key
    if algorithm in _CURVES:
        needed = f"a key on the curve {_CURVES[algorithm][1]}"
    else:
        needed = "Ed25519 or Ed448" if algorithm == "EdDSA" else f"RSA with at least {RSA_BITS_MIN} bits"
    raise ValueError(f"is not a key for {algorithm}, which needs {needed}")


def thumbprint(certificate: str, pem: Secret, algorithm: str) -> str:
    """Return the SHA-256 thumbprint of a certificate in the form of a JOSE header (RFC 7515 4.1.8).

    Raises:
        ValueError: It is not a certificate, or not that of the key. The message reveals nothing of either.
    """
    try:
        read = load_pem_x509_certificate(_lines(certificate))
        public = read.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is not a certificate in PEM form: -----BEGIN CERTIFICATE-----") from None
    if public != load_private_key(pem, algorithm).public_key():
        raise ValueError("is not the certificate of private_key")
    return base64.urlsafe_b64encode(read.fingerprint(SHA256())).rstrip(b"=").decode()


def _lines(pem: str) -> bytes:
    """Restore the line breaks: in environment variables a PEM is often one line with `\\n` in it."""
    return pem.replace("\\r", "").replace("\\n", "\n").encode()
