"""A certificate for the upstreams of these tests."""

from pathlib import Path

import pytest

from tests.tls_servers import make_certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new self-signed certificate for 127.0.0.1, with its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))
