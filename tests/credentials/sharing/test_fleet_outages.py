"""Redis is absent, silent, emptied, killed during a fetch, and restarted: no caller notices."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.typing import EventDict

from proxy.credentials.sharing import FlightContext, fleet
from proxy.credentials.sharing.fleet import HOLD_SECONDS_MIN, POLL_SECONDS, REDIS_SECONDS
from proxy.redis_connection import StoreUnavailable
from tests.credentials.fakes import FakeIssuer, failure_of, highest, reject, replaced
from tests.credentials.sharing.fleet_members import Member, fleet_of, replacements, tokens_of
from tests.redis_server import RedisServer
from tests.virtual_time import run_virtually

pytestmark = pytest.mark.usefixtures("unhurried")

LEASE = 2.0
SHORT_SECONDS = 0.5
"""How long to wait for a Redis that is silent anyway."""


async def test_without_redis_each_member_fetches_for_itself(tmp_path: Path, lines: list[EventDict]) -> None:
    issuer = FakeIssuer()
    async with fleet_of(3, f"unix://{tmp_path}/nowhere.sock", issuer) as members:
        assert len({*await tokens_of(members)}) == 3
        assert [member.sharing.stats.store_errors for member in members] == [1, 1, 1]
    assert issuer.fetches == 3
    assert [line["event"] for line in lines].count("token_store_unavailable") == 3


async def test_a_silent_redis_costs_one_timeout_and_then_nothing(store: RedisServer) -> None:
    issuer = FakeIssuer()
    async with fleet_of(1, store.url, issuer) as (member,):
        store.pause()
        member.redis.timeout = SHORT_SECONDS
        token = await member.machine.get()
        for _ in range(3):  # during the pause, fetches do not try Redis
            known = FlightContext(token.generation, rejected=frozenset({token.digest}))
            token = await member.sharing.obtain(issuer.fetch, known)
        assert member.sharing.stats.store_errors == 1
        store.resume()
    assert issuer.fetches == 4


async def test_a_redis_that_dies_in_the_middle_is_no_error(store: RedisServer) -> None:
    issuer = FakeIssuer(delay=0.05)
    async with fleet_of(4, store.url, issuer) as members:
        assert len({*await tokens_of(members)}) == 1
        await store.stop()
        assert len({*await replacements(members)}) == 4  # one each, and no error
        assert issuer.fetches == 5


async def test_once_redis_is_back_one_fetch_is_enough_again(store: RedisServer) -> None:
    issuer = FakeIssuer()
    await store.stop()
    async with fleet_of(3, store.url, issuer) as members:
        await tokens_of(members)
        await store.start()
        for member in members:
            member.sharing._redis_pause_until = -1.0  # the pause is over
        assert len({*await replacements(members)}) == 1
    assert issuer.fetches == 4


async def test_an_emptied_redis_is_a_cold_one(store: RedisServer) -> None:
    issuer = FakeIssuer()
    async with fleet_of(2, store.url, issuer) as (one, two):
        await one.machine.get()
        await store.empty()
        assert (await one.machine.get()).generation == 1  # the token in memory stays in use
        await two.machine.get()
    assert issuer.fetches == 2


async def test_a_connection_that_redis_closed_is_opened_again(store: RedisServer) -> None:
    issuer = FakeIssuer()
    async with fleet_of(1, store.url, issuer) as (member,):
        token = await member.machine.get()
        await store.stop()
        await store.start()  # the pooled connection is broken, but this is not known yet
        known = FlightContext(1, rejected=frozenset({token.digest}))
        await member.sharing.obtain(issuer.fetch, known)
        assert member.sharing.stats.store_errors == 0
        assert any(key.endswith(b"record") for key in await store.dump())


@pytest.mark.parametrize("silent", [False, True])
async def test_a_required_redis_that_is_gone_fails_closed(
    store: RedisServer,
    silent: bool,  # noqa: FBT001
) -> None:
    issuer = FakeIssuer()
    async with fleet_of(2, store.url, issuer, required=True) as members:
        await tokens_of(members)
        if silent:
            store.pause()
            members[0].redis.timeout = SHORT_SECONDS
        else:
            await store.stop()
        assert len({*await tokens_of(members)}) == 1  # a token in memory stays in use
        use = await reject(members[0].machine)
        error = await failure_of(use.token())
        assert error.reason == "the shared token store cannot be reached"
        assert error.status == 503
        assert "Retry-After" in error.headers
        if silent:
            store.resume()
    assert issuer.fetches == 1


async def test_a_key_rotation_disconnects_no_member(store: RedisServer) -> None:
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


async def test_a_record_that_cannot_be_decrypted_is_logged_and_fetched_again(
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
        tokens = await asyncio.gather(*gets)
    assert {token.secret.reveal() for token in tokens} == {"token-1"}
    assert issuer.fetches == 1


async def test_members_do_not_compete_for_a_revoking_issuer(store: RedisServer) -> None:
    revoking = RevokingIssuer(delay=0.02)
    async with fleet_of(8, store.url, revoking, required=True, exclusive=True) as members:
        await tokens_of(members)
        await replaced(members[0].machine)  # a new token, which revokes that of the seven others
        assert revoking.fetches == 2
        for _ in range(3):
            for member in members:
                token = await member.machine.get()
                if token.secret.reveal() != revoking.live:
                    await replaced(member.machine)
            assert await tokens_of(members) == [revoking.live] * 8
    assert revoking.fetches == 2


class RevokingIssuer(FakeIssuer):
    """An issuer whose newest token is the only valid one."""

    @property
    def live(self) -> str:
        """The valid token."""
        return f"token-{self.fetches}"


@pytest.mark.parametrize("latency", [0.1, 0.3, 0.6])
async def test_a_slow_redis_costs_a_flight_no_more_than_a_second(
    store: RedisServer, monkeypatch: pytest.MonkeyPatch, latency: float
) -> None:
    monkeypatch.setattr(fleet, "REDIS_SECONDS", REDIS_SECONDS)
    monkeypatch.setattr(fleet, "HOLD_SECONDS_MIN", HOLD_SECONDS_MIN)

    async def ask() -> None:
        now = asyncio.get_running_loop().time
        issuer = FakeIssuer(delay=0.1)
        with redis.Redis.from_url(store.url) as client:
            async with fleet_of(6, store.url, issuer, uniform=highest, lease_seconds=LEASE) as members:
                for member in members:
                    slow_down(member, client, latency)
                for ask_all in (tokens_of, replacements):
                    began = now()
                    await ask_all(members)
                    assert now() - began < REDIS_SECONDS + issuer.delay + 2 * highest(*POLL_SECONDS)

    await asyncio.to_thread(run_virtually, ask)
    assert all(0 <= seconds <= LEASE for seconds in (await store.lifetimes("*lease")).values())


def slow_down(member: Member, client: redis.Redis, seconds: float) -> None:
    """Let each reply of Redis to a member take some virtual time."""

    async def run_script(script: str, keys: list[str], *arguments: Any, within: float) -> object:
        reply = client.eval(script, len(keys), *keys, *arguments)
        await asyncio.sleep(min(seconds, within))
        if seconds > within:
            raise StoreUnavailable("no answer in time")
        return reply

    member.redis.run_script = run_script  # type: ignore[method-assign,assignment]
