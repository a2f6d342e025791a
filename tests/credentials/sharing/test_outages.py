"""Redis absent, silent, emptied, killed in the middle, and back again: no caller notices."""

import asyncio
from pathlib import Path

import pytest
from structlog.typing import EventDict

from proxy.credentials.sharing import Known
from tests.credentials.fakes import FakeIssuer, failure_of
from tests.credentials.sharing.fleet_members import fleet_of, tokens_of
from tests.pace import paced
from tests.redis_server import RedisServer

FAST = {"redis_timeout": paced(0.5)}


async def test_without_redis_each_member_fetches_for_itself(tmp_path: Path, lines: list[EventDict]) -> None:
    issuer = FakeIssuer()
    async with fleet_of(3, f"unix://{tmp_path}/nowhere.sock", issuer) as members:
        assert len({*await tokens_of(members)}) == 3
        assert [member.sharing.stats.store_errors for member in members] == [1, 1, 1]
    assert issuer.fetches == 3
    assert [line["event"] for line in lines].count("token_store_unavailable") == 3


async def test_a_silent_redis_costs_one_timeout_and_then_nothing(store: RedisServer) -> None:
    issuer = FakeIssuer()
    async with fleet_of(1, store.url, issuer, settings=FAST) as (member,):
        store.pause()
        credential = await member.machine.get()
        for _ in range(3):  # while it rests, flights do not even try
            known = Known(credential.generation, None, frozenset({credential.digest}), 0)
            credential = await member.sharing.bring(issuer.fetch, known)
        assert member.sharing.stats.store_errors == 1
        store.resume()
    assert issuer.fetches == 4


async def test_a_redis_that_dies_in_the_middle_is_no_error(store: RedisServer) -> None:
    issuer = FakeIssuer(delay=0.05)
    async with fleet_of(4, store.url, issuer, settings=FAST) as members:
        assert len({*await tokens_of(members)}) == 1
        await store.stop()
        for member in members:
            member.machine.invalidate(1, "401")
        assert len({*await tokens_of(members)}) == 4  # one each, and no error
        assert issuer.fetches == 5


async def test_once_redis_is_back_one_fetch_is_enough_again(store: RedisServer) -> None:
    issuer = FakeIssuer()
    await store.stop()
    async with fleet_of(3, store.url, issuer, settings=FAST) as members:
        await tokens_of(members)
        await store.start()
        for member in members:
            member.sharing._rest_until = -1.0  # its rest is over
            member.machine.invalidate(1, "401")
        assert len({*await tokens_of(members)}) == 1
    assert issuer.fetches == 4


async def test_an_emptied_redis_is_a_cold_one(store: RedisServer) -> None:
    issuer = FakeIssuer()
    async with fleet_of(2, store.url, issuer) as (one, two):
        await one.machine.get()
        await store.empty()
        assert (await one.machine.get()).generation == 1  # what is in hand serves on
        await two.machine.get()
    assert issuer.fetches == 2


async def test_a_connection_that_redis_closed_is_opened_again(store: RedisServer) -> None:
    issuer = FakeIssuer()
    async with fleet_of(1, store.url, issuer) as (member,):
        credential = await member.machine.get()
        await store.stop()
        await store.start()  # the pooled connection is dead now, and nobody has noticed
        known = Known(1, None, frozenset({credential.digest}), 0)
        await member.sharing.bring(issuer.fetch, known)
        assert member.sharing.stats.store_errors == 0
        assert any(key.endswith(b"record") for key in await store.dump())


@pytest.mark.parametrize("silent", [False, True])
async def test_a_required_redis_that_is_gone_fails_closed(
    store: RedisServer,
    silent: bool,  # noqa: FBT001
) -> None:
    issuer = FakeIssuer()
    async with fleet_of(2, store.url, issuer, required=True, settings=FAST) as members:
        await tokens_of(members)
        if silent:
            store.pause()
        else:
            await store.stop()
        assert len({*await tokens_of(members)}) == 1  # a token in hand serves on
        members[0].machine.invalidate(1, "401")
        error = await failure_of(members[0].machine.get())
        assert error.reason == "the shared token store cannot be reached"
        assert (error.status, error.headers["Retry-After"]) == (503, "2")
        if silent:
            store.resume()
    assert issuer.fetches == 1


async def test_a_key_that_is_exchanged_cuts_nobody_off(store: RedisServer) -> None:
    old, new = "0" * 64, "1" * 64
    issuer = FakeIssuer()
    both = [
        {"encryption_key": old, "decryption_keys": [new], "name_key": "2" * 64},
        {"encryption_key": new, "decryption_keys": [old], "name_key": "2" * 64},
    ]
    async with (
        fleet_of(1, store.url, issuer, settings=both[0]) as (before,),
        fleet_of(1, store.url, issuer, settings=both[1]) as (after,),
    ):
        await after.machine.get()
        await before.machine.get()
    assert issuer.fetches == 1


async def test_a_record_that_cannot_be_opened_is_fetched_anew_and_said(
    store: RedisServer, lines: list[EventDict]
) -> None:
    issuer = FakeIssuer()
    async with fleet_of(1, store.url, issuer) as (member,):
        await member.machine.get()
    place = next(key for key in await store.dump() if key.endswith(b"record"))
    await store.put(place, b"7 bm90IHNlYWxlZCBoZXJl")
    async with fleet_of(1, store.url, issuer) as (member,):
        await member.machine.get()
    assert issuer.fetches == 2
    assert "shared_token_unreadable" in [line["event"] for line in lines]


async def test_many_waiters_at_a_busy_fleet_all_get_their_token(store: RedisServer) -> None:
    issuer = FakeIssuer(delay=0.2)
    async with fleet_of(4, store.url, issuer) as members:
        gets = [member.machine.get() for member in members for _ in range(250)]
        credentials = await asyncio.gather(*gets)
    assert {credential.secret.reveal() for credential in credentials} == {"token-1"}
    assert issuer.fetches == 1


async def test_an_issuer_that_revokes_is_not_fought_over(store: RedisServer) -> None:
    revoking = RevokingIssuer(delay=0.02)
    async with fleet_of(8, store.url, revoking, required=True) as members:
        await tokens_of(members)
        members[0].machine.invalidate(1, "401")
        await members[0].machine.get()  # a new one: that of the seven others is dead now
        assert revoking.fetches == 2
        for _ in range(3):
            for member in members:
                credential = await member.machine.get()
                if credential.secret.reveal() != revoking.live:
                    member.machine.invalidate(credential.generation, "401")
            assert await tokens_of(members) == [revoking.live] * 8
    assert revoking.fetches == 2


class RevokingIssuer(FakeIssuer):
    """Only its newest token is taken by the upstream."""

    @property
    def live(self) -> str:
        """That token."""
        return f"token-{self.fetches}"
