"""A vendor's token endpoint, and an example's surroundings."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.config.examples import Surroundings
from tests.config.vendor import Vendor
from tests.loopback import serve_on_loopback


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    """Serve a vendor without replies; the test adds them by path."""
    vendor = Vendor()
    async with serve_on_loopback(vendor.app()) as vendor.url:
        yield vendor


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    """Surroundings with nothing but a folder."""
    return Surroundings(tmp_path)
