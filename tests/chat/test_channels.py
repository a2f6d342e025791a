"""Owners of channels, the lease of a dialogue, and requests to stop: in memory and over Redis."""

import asyncio

import pytest

from proxy.chat.channels import MemoryChannels
from proxy.chat.redis_channels import STOPS, RedisChannels
from proxy.errors import RateLimited
from tests.chat.conftest import OpenStores, stopped
from tests.pace import PATIENCE


async def test_a_channel_belongs_to_the_first_session_that_claims_it(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        assert await here.channels.claim("c", "first")
        assert not await there.channels.claim("c", "second")
        assert await there.channels.claim("c", "first")
        assert await there.channels.claim("d", "second")


async def test_one_of_many_sessions_at_once_gets_a_channel(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        asked = [(here, there)[place % 2].channels.claim("c", f"session-{place}") for place in range(20)]
        assert sum(await asyncio.gather(*asked)) == 1


async def test_a_channel_counts_to_the_address_of_its_owner() -> None:
    channels = MemoryChannels()
    assert await channels.claim("c", "first", "192.0.2.1")
    assert not await channels.claim("c", "second", "192.0.2.2")
    assert await channels.ownership("c", "first") == "own"
    assert (channels.visitor_of("c"), channels.visitor_of("d")) == ("192.0.2.1", "")


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "a\0", STOPS, "llm-token-proxy:anything"])
async def test_reserved_names_cannot_be_owned(open_both: OpenStores, name: str) -> None:
    async with open_both() as (here, _):
        assert not await here.channels.claim(name, "session")


async def test_the_ownership_of_an_unused_channel_expires() -> None:
    now = 0.0
    channels = MemoryChannels(owned=10, clock=lambda: now)
    assert await channels.claim("c", "first")
    now = 9.0
    assert await channels.claim("c", "first")
    now = 18.9
    assert not await channels.claim("c", "second")
    now = 19.0
    assert await channels.claim("c", "second")


async def test_in_memory_only_a_channel_without_events_makes_room() -> None:
    now = 0.0
    channels = MemoryChannels(limit=2, owned=100, kept=10, clock=lambda: now)
    for name in ("a", "b", "a"):
        assert await channels.claim(name, "first")
    with pytest.raises(RateLimited):
        await channels.claim("c", "second")
    now = 10.0
    assert await channels.claim("c", "second")
    assert await channels.ownership("b", "second") == "free"
    assert await channels.ownership("a", "second") == "taken"


async def test_looking_at_a_channel_claims_nothing(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        assert await here.channels.ownership("c", "first") == "free"
        assert not await there.channels.owned("c")
        assert await there.channels.claim("c", "second")
        assert await here.channels.ownership("c", "first") == "taken"
        assert await here.channels.ownership("c", "second") == "own"


async def test_one_dialogue_runs_at_a_time(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        assert not await there.channels.busy("c")
        assert await here.channels.begin("c")
        assert not await here.channels.begin("c")
        assert not await there.channels.begin("c")
        assert await there.channels.busy("c")
        assert await there.channels.begin("d")
        await here.channels.end("c")
        assert not await there.channels.busy("c")
        assert await there.channels.begin("c")
        await there.channels.end("c")


async def test_of_many_concurrent_starts_one_succeeds(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        begun = await asyncio.gather(*((here, there)[place % 2].channels.begin("c") for place in range(20)))
        assert len([holder for holder in begun if holder is not None]) == 1


async def test_a_stop_reaches_the_process_that_runs_the_dialogue(open_both: OpenStores) -> None:
    async with open_both() as (here, there), here.broker.subscribe("c", None):  # it listens by now
        if isinstance(here.channels, RedisChannels):
            here.channels._renew = 2 * PATIENCE  # a renewal would find the request too, but late
        assert await here.channels.begin("c")
        assert await here.channels.begin("other")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(stopped(here.channels, "c"))
            other = group.create_task(stopped(here.channels, "other"))
            await asyncio.sleep(0)
            await there.channels.request_stop("c")
            assert await waiting == "requested"
            assert not other.done()
            other.cancel()


async def test_a_stop_before_the_wait_is_not_lost(open_both: OpenStores) -> None:
    async with open_both() as (here, _):
        assert await here.channels.begin("c")
        await here.channels.request_stop("c")
        assert await stopped(here.channels, "c") == "requested"


async def test_a_stop_does_not_reach_the_next_dialogue(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        await there.channels.request_stop("c")  # nothing runs
        assert await here.channels.begin("c")
        await there.channels.request_stop("c")
        assert await stopped(here.channels, "c") == "requested"
        await here.channels.end("c")
        assert await here.channels.begin("c")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await here.channels.wait_for_stop("c")
        assert await here.channels.renew("c")


async def test_without_a_lease_the_stop_reason_is_lost(open_both: OpenStores) -> None:
    async with open_both() as (here, _):
        assert await stopped(here.channels, "c") == "lost"
        assert not await here.channels.renew("c")
        await here.channels.end("c")
