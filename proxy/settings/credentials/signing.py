"""What the JWTs that we sign are made of: keys that fit their algorithms, and tables of claims."""

import base64
from collections.abc import Iterable, Iterator, Mapping
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
from proxy.settings.problems import Problem
from proxy.settings.recipe_values import Json, json_value
from proxy.settings.section import refuse

PrivateKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey

RSA_BITS_MIN: Final = 2048
"""RFC 7518 3.3 and 3.5: shorter keys must not be used."""
_CURVES: Final[Mapping[str, tuple[str, str]]] = {  # RFC 7518 3.4: the library's name, and the usual one
    "ES256": ("secp256r1", "P-256"),
    "ES384": ("secp384r1", "P-384"),
    "ES512": ("secp521r1", "P-521"),
}
_PEM: Final = "-----BEGIN "


def is_symmetric(algorithm: str) -> bool:
    """Whether a JWS algorithm (RFC 7518 3.1) signs with a secret that both sides know."""
    return algorithm.startswith("HS")


def load_private_key(pem: Secret, algorithm: str) -> PrivateKey:
    """Read a key and see that the algorithm can sign with it.

    Args:
        pem: PKCS #8, PKCS #1 or SEC 1, not encrypted.
        algorithm: Any JWS algorithm but the symmetric ones.

    Raises:
        ValueError: It cannot; in words that hold nothing of the key.
    """
    try:
        key = load_pem_private_key(_lines(pem.reveal()), password=None)
    except TypeError:
        raise ValueError("is encrypted: give the key without its pass phrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"is not a private key in PEM form, such as {_PEM}PRIVATE KEY-----") from None
    if isinstance(key, RSAPrivateKey) and algorithm.startswith(("RS", "PS")):
        if key.key_size >= RSA_BITS_MIN:
            return key
    elif isinstance(key, EllipticCurvePrivateKey) and algorithm in _CURVES:
        if key.curve.name == _CURVES[algorithm][0]:
            return key
    elif isinstance(key, Ed25519PrivateKey | Ed448PrivateKey) and algorithm == "EdDSA":
        return key
    raise ValueError(f"is not a key for {algorithm}, which takes {_fitting(algorithm)}")


def _fitting(algorithm: str) -> str:
    if algorithm in _CURVES:
        return f"one on the curve {_CURVES[algorithm][1]}"
    return "Ed25519 or Ed448" if algorithm == "EdDSA" else f"RSA with at least {RSA_BITS_MIN} bits"


def thumbprint(certificate: str, pem: Secret, algorithm: str) -> str:
    """The SHA-256 of a certificate as a JOSE header has it (RFC 7515 4.1.8).

    Raises:
        ValueError: It is no certificate, or not that of the key; in words that hold nothing of either.
    """
    try:
        read = load_pem_x509_certificate(_lines(certificate))
        public = read.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"is not a certificate in PEM form: {_PEM}CERTIFICATE-----") from None
    if public != load_private_key(pem, algorithm).public_key():
        raise ValueError("is not the certificate of private_key")
    return base64.urlsafe_b64encode(read.fingerprint(SHA256())).rstrip(b"=").decode()


def _lines(pem: str) -> bytes:
    """A PEM in the environment is often one line with `\\n` in it; a proper one holds no backslash."""
    return pem.replace("\\r", "").replace("\\n", "\n").encode()


def key_problems(name: str, key: Secret, algorithm: str) -> Iterator[Problem]:
    """Tell why an algorithm cannot sign with the key that stands under a name."""
    if is_symmetric(algorithm):
        if key.reveal().lstrip().startswith(_PEM):
            yield Problem((name,), f"is a PEM, yet {algorithm} signs with a secret that both sides know")
        return
    try:
        load_private_key(key, algorithm)
    except ValueError as error:
        yield Problem((name,), str(error))


def claim_problems(
    table: str, claims: Mapping[str, Json], written: Iterable[tuple[str, str]]
) -> Iterator[Problem]:
    """Tell which members of a table have a key of their own; `written` pairs each with that key."""
    for member, key in written:
        if member in claims:
            yield Problem((table, member), f"is written by {key}")


def json_table(value: object) -> Json:
    """Freeze a JSON object; what came from the environment or a file in it becomes secret."""
    if not isinstance(value, Mapping):
        refuse("must be a table")
    return json_value(value)
