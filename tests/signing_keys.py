"""Private keys and certificates for signatures, which are created once, when a test needs them."""

from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

KINDS = {"RS": "rsa", "PS": "rsa", "ES256": "p256", "ES384": "p384", "ES512": "p521", "EdDSA": "ed25519"}
PASS_PHRASE = b"canary-pass-phrase"


def pem_for(algorithm: str) -> str:
    """Return a private key for an algorithm."""
    return pem(KINDS.get(algorithm) or KINDS[algorithm[:2]])


def public_for(algorithm: str) -> PublicKeyTypes:
    """Return the key that verifies its signatures."""
    return _key(KINDS.get(algorithm) or KINDS[algorithm[:2]]).public_key()


@cache
def pem(kind: str, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    """Return a key of a kind: rsa, rsa-other, rsa-1024, p256, p384, p521 or ed25519."""
    return _key(kind).private_bytes(Encoding.PEM, form, NoEncryption()).decode()


@cache
def encrypted_pem(kind: str) -> str:
    """Return an encrypted key."""
    encryption = BestAvailableEncryption(PASS_PHRASE)
    return _key(kind).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


@cache
def public_pem(kind: str) -> str:
    """Return the public key."""
    return _key(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@cache
def certificate(kind: str) -> x509.Certificate:
    """Return a self-signed certificate of a key for a server on loopback."""
    key = load_pem_private_key(pem(kind).encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proxy.example")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(loopback, critical=False)
        .sign(key, SHA256())
    )


def certificate_pem(kind: str) -> str:
    """Return the same as text."""
    return certificate(kind).public_bytes(Encoding.PEM).decode()


@cache
def _key(kind: str) -> PrivateKeyTypes:
    match kind:
        case "rsa" | "rsa-other":
            return rsa.generate_private_key(65537, 2048)
        case "rsa-1024":
            return rsa.generate_private_key(65537, 1024)  # noqa: S505 - too short, to be refused
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "p521":
            return ec.generate_private_key(ec.SECP521R1())
        case _:
            return ed25519.Ed25519PrivateKey.generate()
