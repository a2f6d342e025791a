"""The streams of a caller: counted in a process, or together in Redis, and never held by a dead process."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from proxy.access import Caller
from proxy.access.streams import ENDED_MAX, StreamCounts
from proxy.errors import RateLimited
from proxy.redis_connection import RedisConnection
from proxy.secret import Secret
from proxy.settings import Shared
from tests.pace import PATIENCE
from tests.redis_server import RedisServer, redis_server
from tests.waiting import look_again

TWO = Caller("a", max_streams=2)


@asynccontextmanager
async def two_processes(server: RedisServer) -> AsyncIterator[tuple[StreamCounts, StreamCounts]]:
    """Open the counters of two processes."""
    settings = Shared(redis_url=Secret(server.url), encryption_key=Secret("0" * 64), redis_timeout=PATIENCE)
    async with AsyncExitStack() as stack:
        connections = [RedisConnection(settings) for _ in range(2)]
        for redis in connections:
            stack.push_async_callback(redis.close)
        one, other = map(StreamCounts, connections)
        yield one, other


async def is_accepted(counts: StreamCounts, caller: Caller = TWO) -> bool:
    """Return whether one more stream is accepted."""
    try:
        async with counts.counted(caller):
            return True
    except RateLimited:
        return False


async def test_a_process_counts_for_itself_without_redis() -> None:
    counts, unlimited = StreamCounts(), Caller("b")
    async with counts.counted(TWO), counts.counted(TWO), counts.counted(unlimited):
        assert not await is_accepted(counts)
        assert await is_accepted(counts, unlimited)
        assert await is_accepted(StreamCounts())
    assert await is_accepted(counts)


async def test_a_limit_holds_for_all_processes(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, two_processes(server) as (one, other), one.counted(TWO):
        async with other.counted(TWO):
            assert not await is_accepted(one)
            assert not await is_accepted(other)
            assert await is_accepted(other, Caller("b", max_streams=1))
        assert await is_accepted(one)
        assert await is_accepted(other)


async def test_of_many_streams_at_once_exactly_the_limit_is_accepted(tmp_path: Path) -> None:
    caller, accepted, refused = Caller("a", max_streams=5), 0, 0
    async with redis_server(tmp_path) as server, two_processes(server) as both, AsyncExitStack() as streams:

        async def begin(counts: StreamCounts) -> None:
            nonlocal accepted, refused
            try:
                await streams.enter_async_context(counts.counted(caller))
                accepted += 1
            except RateLimited:
                refused += 1

        await asyncio.gather(*(begin(both[number % 2]) for number in range(20)))
        assert (accepted, refused) == (5, 15)


async def test_streams_of_a_process_that_died_are_forgotten(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        two_processes(server) as (dead, other),
        dead.counted(TWO),
        dead.counted(TWO),
    ):
        assert not await is_accepted(other)
        dead._lease_ms = 1
        await dead.renew_once()  # for the last time
        async with asyncio.timeout(PATIENCE):
            while not await is_accepted(other):
                await look_again()


async def test_streams_that_last_longer_than_the_lease_stay_counted(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        two_processes(server) as (one, other),
        one.counted(TWO),
        one.counted(TWO),
    ):
        await server.delete("*streams*")
        assert await is_accepted(other)
        await one.renew_once()
        assert not await is_accepted(other)


async def test_each_process_counts_for_itself_while_redis_is_down(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, two_processes(server) as (one, other):
        await server.stop()
        async with one.counted(TWO), one.counted(TWO):
            assert not await is_accepted(one)
            assert await is_accepted(other)


@pytest.mark.parametrize("renews", [False, True])
async def test_streams_that_ended_while_redis_was_away_are_removed_when_it_is_back(
    tmp_path: Path, *, renews: bool
) -> None:
    async with redis_server(tmp_path) as server, two_processes(server) as (one, other):
        async with one.counted(TWO), one.counted(TWO):
            one._redis_pause_until = math.inf
        one._redis_pause_until = -math.inf
        assert not await is_accepted(other)  # Redis still counts them
        if renews:
            await one.renew_once()
            assert await is_accepted(other)
        assert await is_accepted(one)
        assert await is_accepted(other)
        assert one._ended == {}


async def test_the_streams_that_ended_in_a_long_outage_are_bounded(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, two_processes(server) as (one, _):
        one._redis_pause_until = math.inf
        for _ in range(ENDED_MAX + 10):
            assert await is_accepted(one)
        assert len(one._ended["a"]) == ENDED_MAX


async def test_without_redis_no_ended_stream_is_remembered() -> None:
    counts = StreamCounts()
    assert await is_accepted(counts)
    assert counts._ended == {}
