"""The configuration of the server: what Hypercorn's keys mean here, and the one that it lacks."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from proxy.server.config import ServerConfig
from tests.pace import PATIENCE
from tests.tls_servers import make_certificate

LOAD = """
import os, sys
os.open(os.ttyname(0), os.O_RDWR)  # makes it the terminal of this process, on which OpenSSL would ask
from proxy.server.config import ServerConfig
config = ServerConfig()
config.certfile, config.keyfile = sys.argv[1:]
config.create_ssl_context()
"""


def test_both_kinds_of_keys_are_read_from_one_mapping() -> None:
    config = ServerConfig.from_mapping({"readiness_delay": 2.5, "keyfile_password": "p", "backlog": 7})
    assert isinstance(config, ServerConfig)
    assert (config.readiness_delay, config.keyfile_password, config.backlog) == (2.5, "p", 7)


def test_an_encrypted_key_without_a_password_fails_and_does_not_ask_the_terminal(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    key = serialization.load_pem_private_key(certificate.read_bytes(), None)
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    ours, theirs = pty.openpty()
    try:
        ended = subprocess.run(
            [sys.executable, "-c", LOAD, str(certificate), str(encrypted)],
            stdin=theirs,
            stderr=subprocess.PIPE,
            start_new_session=True,
            timeout=PATIENCE,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert ended.returncode == 1
    assert b"SSLError" in ended.stderr
