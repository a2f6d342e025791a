"""A Redis for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer, redis_server


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """Run a redis-server."""
    async with redis_server(tmp_path) as server:
        yield server
