"""Run a program on a terminal, on which OpenSSL asks for the password of a key unless one is given."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from tests.pace import PATIENCE
from tests.tls_servers import make_certificate

_TAKE = "import os\nos.open(os.ttyname(0), os.O_RDWR)  # makes it the terminal of this process\n"


def run_on_terminal(program: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; a question that it asks is not answered."""
    ours, theirs = pty.openpty()
    try:
        return subprocess.run(
            [sys.executable, "-c", _TAKE + program, *map(str, arguments)],
            stdin=theirs,
            stderr=subprocess.PIPE,
            start_new_session=True,
            timeout=PATIENCE,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)


def make_encrypted_pair(folder: Path) -> tuple[Path, Path]:
    """Write a certificate and its encrypted key."""
    certificate = make_certificate(folder)
    key = serialization.load_pem_private_key(certificate.read_bytes(), None)
    encrypted = folder / "encrypted.pem"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return certificate, encrypted
