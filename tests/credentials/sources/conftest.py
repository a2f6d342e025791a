"""A token endpoint of the tests, served."""

from collections.abc import AsyncIterator

import pytest

from tests.credentials.sources.token_endpoint import TokenEndpoint
from tests.loopback import serve_on_loopback


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    """One that answers every request with a token, until it is told otherwise."""
    endpoint = TokenEndpoint()
    async with serve_on_loopback(endpoint.app()) as endpoint.url:
        yield endpoint
