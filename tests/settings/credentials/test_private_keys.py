"""Keys in PEM form: which algorithm each can sign for, and that messages reveal none of it."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from proxy.secret import Secret
from proxy.settings.credentials.private_keys import load_private_key, thumbprint
from tests.signing_keys import certificate, pem

FITS = {
    "rsa": {"RS256", "PS512"},
    "p256": {"ES256"},
    "p384": {"ES384"},
    "p521": {"ES512"},
    "ed25519": {"EdDSA"},
    "rsa-1024": set[str](),
}
ALGORITHMS = sorted({algorithm for algorithms in FITS.values() for algorithm in algorithms})


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_fits_the_algorithms_of_its_kind_and_size(kind: str, algorithm: str) -> None:
    if algorithm in FITS[kind]:
        load_private_key(Secret(pem(kind)), algorithm)
    else:
        with pytest.raises(ValueError, match=rf"^is not a key for {algorithm}, which needs "):
            load_private_key(Secret(pem(kind)), algorithm)


def test_a_key_may_be_one_line_of_an_environment_variable() -> None:
    line = pem("p256").replace("\n", "\\n")
    assert "\n" not in line
    read = load_private_key(Secret(line), "ES256")
    assert read.public_key() == load_private_key(Secret(pem("p256")), "ES256").public_key()


@pytest.mark.parametrize("text", ["", "canary", "-----BEGIN PRIVATE KEY-----\ncanary"])
def test_a_message_reveals_nothing_of_the_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is not a private key in PEM form") as refused:
        load_private_key(Secret(text), "RS256")
    assert "canary" not in str(refused.value)


def test_a_thumbprint_is_that_of_the_certificate_and_needs_its_key() -> None:
    own = certificate("rsa")
    text = own.public_bytes(Encoding.PEM).decode()
    found = thumbprint(text, Secret(pem("rsa")), "RS256")
    digest = hashlib.sha256(own.public_bytes(Encoding.DER)).digest()
    assert base64.urlsafe_b64decode(f"{found}=") == digest
    with pytest.raises(ValueError, match=r"^is not the certificate of private_key$"):
        thumbprint(text, Secret(pem("rsa-other")), "RS256")
    with pytest.raises(ValueError, match=r"^is not a certificate in PEM form"):
        thumbprint(pem("rsa"), Secret(pem("rsa")), "RS256")
