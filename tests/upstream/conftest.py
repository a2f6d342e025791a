"""A certificate for the upstreams of these tests."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import require


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new self-signed certificate for 127.0.0.1, with its key."""
    require("openssl", found=shutil.which("openssl") is not None)
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(path.with_suffix(".key")), "-out", str(path)]
    subprocess.run(["openssl", "req", "-x509", *options, *names, *files], check=True, capture_output=True)
    return path
