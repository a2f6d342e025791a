"""The client certificate of a token endpoint and its private key are checked with the settings."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from proxy.errors import SettingsError
from proxy.settings import load_settings
from tests.conftest import KEY, SETTINGS
from tests.terminal import make_encrypted_pair, run_on_terminal
from tests.tls_servers import make_certificate

CREDENTIAL = """
source = "oauth2"
token_url = "https://127.0.0.1:9/token"
client_id = "x"
client_secret = "y"
"""
PRIVATE = b"-----BEGIN PRIVATE"


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The content of PEM files by name."""
    folder = tmp_path_factory.mktemp("pems")
    both, other = (make_certificate(folder).read_bytes() for _ in range(2))
    certificate, _, rest = both.partition(PRIVATE)
    key = load_pem_private_key(PRIVATE + rest, None)
    pkcs8, openssl = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL
    password = BestAvailableEncryption(b"password")
    other_kind = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, pkcs8, NoEncryption())
    return {
        "both.pem": both,
        "cert.pem": certificate,
        "key.pem": PRIVATE + rest,
        "half.pem": PRIVATE + rest[:-60],
        "other.pem": PRIVATE + other.partition(PRIVATE)[2],
        "rsa.pem": other_kind,
        "mixed.pem": certificate + PRIVATE + other.partition(PRIVATE)[2],
        "encrypted.pem": key.private_bytes(Encoding.PEM, pkcs8, password),
        "encrypted-old.pem": key.private_bytes(Encoding.PEM, openssl, password),
        "encrypted-both.pem": certificate + key.private_bytes(Encoding.PEM, pkcs8, password),
        "empty.pem": b"",
    }


def problems(folder: Path, pems: dict[str, bytes], cert: str, key: str | None) -> list[str]:
    """Return the problems with a pair of files."""
    for name, content in pems.items():
        (folder / name).write_bytes(content)
    keys = f'client_cert = "{cert}"\n' + (f'client_key = "{key}"\n' if key else "")
    path = folder / "proxy.toml"
    path.write_text(
        SETTINGS.format(
            key=KEY, upstream="http://127.0.0.1:9", credential=CREDENTIAL + keys, options="", more=""
        )
    )
    try:
        load_settings(path, {})
    except SettingsError as error:
        return [problem.replace(str(folder), "") for problem in error.problems]
    return []


@pytest.mark.parametrize(("cert", "key"), [("cert.pem", "key.pem"), ("both.pem", None)])
def test_a_pair_is_accepted(tmp_path: Path, pems: dict[str, bytes], cert: str, key: str | None) -> None:
    assert problems(tmp_path, pems, cert, key) == []


MISMATCH = "contains the private key of another certificate"
ENCRYPTED = "is encrypted: give the key without a pass phrase"
NO_KEY = "contains no private key in PEM form"
NO_CERTIFICATE = "contains no certificate in PEM form (-----BEGIN CERTIFICATE-----)"


@pytest.mark.parametrize(
    ("cert", "key", "named", "file", "words"),
    [
        ("cert.pem", "other.pem", "client_key", "other.pem", MISMATCH),
        ("cert.pem", "rsa.pem", "client_key", "rsa.pem", MISMATCH),
        ("mixed.pem", None, "client_cert", "mixed.pem", MISMATCH),
        ("cert.pem", "encrypted.pem", "client_key", "encrypted.pem", ENCRYPTED),
        ("cert.pem", "encrypted-old.pem", "client_key", "encrypted-old.pem", ENCRYPTED),
        ("encrypted-both.pem", None, "client_cert", "encrypted-both.pem", ENCRYPTED),
        ("cert.pem", "half.pem", "client_key", "half.pem", NO_KEY),
        ("cert.pem", "empty.pem", "client_key", "empty.pem", NO_KEY),
        ("cert.pem", None, "client_cert", "cert.pem", NO_KEY),
        ("empty.pem", "key.pem", "client_cert", "empty.pem", NO_CERTIFICATE),
        ("key.pem", "key.pem", "client_cert", "key.pem", NO_CERTIFICATE),
    ],
)
def test_a_pair_that_cannot_be_used_is_rejected_with_its_line(
    tmp_path: Path,
    pems: dict[str, bytes],
    cert: str,
    key: str | None,
    named: str,
    file: str,
    words: str,
) -> None:
    (problem,) = problems(tmp_path, pems, cert, key)
    text = (tmp_path / "proxy.toml").read_text().splitlines()
    line = next(number for number, each in enumerate(text, 1) if each.startswith(named))
    assert problem == f"/proxy.toml:{line}: credentials.corp.{named}: the file /{file} {words}"


CHECK = """
import sys
from pathlib import Path
from proxy.settings.fields import check_client_certificate
check_client_certificate(*map(Path, sys.argv[1:]))
"""


def test_an_encrypted_key_is_rejected_without_asking_the_terminal(tmp_path: Path) -> None:
    ended = run_on_terminal(CHECK, *make_encrypted_pair(tmp_path))
    assert ended.returncode == 1
    assert ENCRYPTED.encode() in ended.stderr
