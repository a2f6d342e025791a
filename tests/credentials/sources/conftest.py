"""The token endpoint of the tests."""

from collections.abc import AsyncIterator

import pytest

from tests.credentials.sources.token_endpoint import TokenEndpoint
from tests.loopback import serve_on_loopback


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    """Serve a token endpoint that answers every request with a token, unless the test changes its replies."""
    endpoint = TokenEndpoint()
    async with serve_on_loopback(endpoint.app()) as endpoint.url:
        yield endpoint
