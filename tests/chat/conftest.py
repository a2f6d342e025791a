"""Fixtures that open the chat's stores: in memory, and over a real Redis for several processes."""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.chat.channels import Channels
from proxy.chat.live_feed import LiveFeed
from proxy.chat.stores import Stores, open_feed, open_stores
from proxy.redis_connection import RedisConnection
from proxy.settings import Shared
from tests.pace import PATIENCE, paced
from tests.redis_server import RedisServer, redis_server

KEY = base64.b64encode(secrets.token_bytes(32)).decode()

Opened = AbstractAsyncContextManager[list[Stores]]
OpenStores = Callable[..., Opened]


def shared(url: str, **more: Any) -> Shared:
    """Return a `[shared]` section whose timeout allows for a busy machine."""
    return Shared.model_validate(
        {"redis_url": url, "encryption_key": KEY, "redis_timeout": paced(5.0), **more}
    )


@asynccontextmanager
async def connection(settings: Shared) -> AsyncIterator[RedisConnection]:
    """Open a connection to Redis."""
    redis = RedisConnection(settings)
    try:
        yield redis
    finally:
        await redis.close()


@asynccontextmanager
async def open_redis(settings: Shared) -> AsyncIterator[tuple[RedisConnection, LiveFeed]]:
    """Open a connection to Redis, and the feed that listens there."""
    async with connection(settings) as redis, open_feed(redis) as feed:
        yield redis, feed


@asynccontextmanager
async def open_process(settings: Shared, **options: Any) -> AsyncIterator[Stores]:
    """Open the stores of one process over Redis."""
    async with connection(settings) as redis, open_stores(settings, redis, **options) as stores:
        yield stores


@asynccontextmanager
async def processes(
    count: int, url: str, *, redis_timeout: float = paced(5.0), **options: Any
) -> AsyncIterator[list[Stores]]:
    """Open stores over one Redis, as separate processes do."""
    settings = shared(url, redis_timeout=redis_timeout)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_process(settings, turns=3, **options)) for _ in range(count)
        ]


async def stopped(channels: Channels, channel: str) -> str:
    """Return why a dialogue must stop."""
    async with asyncio.timeout(PATIENCE):
        return await channels.wait_for_stop(channel)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A running redis-server."""
    async with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def open_both(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStores]:
    """Open two stores of each kind: two processes over Redis, the same one twice in memory."""
    if request.param == "redis":
        async with redis_server(tmp_path) as server:
            yield lambda **options: processes(2, server.url, **options)
        return

    @asynccontextmanager
    async def in_memory(**options: Any) -> AsyncIterator[list[Stores]]:
        async with open_stores(None, None, turns=3, **options) as stores:
            yield [stores, stores]

    yield in_memory
