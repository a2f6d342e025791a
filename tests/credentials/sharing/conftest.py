"""A Redis for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.credentials.sharing import fleet
from tests.pace import PATIENCE
from tests.redis_server import RedisServer, redis_server


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """Run a redis-server."""
    async with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Redis and fetches be as slow as the machine is, except where a test looks at their time limits."""
    for name in ("REDIS_SECONDS", "LEASE_SECONDS_MAX", "HOLD_SECONDS_MIN", "SUCCESSOR_SECONDS"):
        monkeypatch.setattr(fleet, name, PATIENCE)
