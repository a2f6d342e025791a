"""What the tests of several commands need."""

from collections.abc import Iterator

import pytest

from tests.ports import refusing_port


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Yield a loopback port on which nothing listens, and which nobody else gets."""
    with refusing_port() as port:
        yield port
