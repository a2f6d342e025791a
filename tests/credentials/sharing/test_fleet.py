"""A fleet with one Redis: one fetch for all, whoever fails, leaves or comes late."""

import asyncio
import time

import pytest
from structlog.typing import EventDict

from proxy.credentials.credential import FetchedToken
from proxy.credentials.sharing import Known
from proxy.credentials.sources import TokenFetchError
from proxy.errors import TokenUnavailable
from proxy.secret import Secret
from tests.credentials.fakes import DOWN, REFUSED, FakeIssuer, failure_of, lowest
from tests.credentials.sharing.fleet_members import RECIPE, cut_off, fleet_of, tokens_of
from tests.loopback import until
from tests.pace import PATIENCE, paced
from tests.redis_server import RedisServer

LEASE = paced(0.3)
COLD = Known(0, None, frozenset(), 0)


async def never() -> FetchedToken:
    """A fetch that must not happen."""
    raise AssertionError("it fetched")


async def test_a_cold_fleet_fetches_once(store: RedisServer) -> None:
    issuer = FakeIssuer(delay=0.1)
    async with fleet_of(8, store.url, issuer) as members:
        assert await tokens_of(members) == ["token-1"] * 8
        assert sum(member.sharing.stats.adopted for member in members) == 7
    assert issuer.fetches == 1


async def test_who_comes_late_adopts_the_life_that_is_left_whatever_its_clock_says(
    store: RedisServer,
) -> None:
    issuer = FakeIssuer(lifetime=100.0)
    now = asyncio.get_running_loop().time
    async with (
        fleet_of(1, store.url, issuer) as (first,),
        fleet_of(1, store.url, issuer, clock_ahead=3600.0) as (late,),
    ):
        began = now()
        fetched = await first.machine.get()
        adopted = await late.machine.get()
        assert adopted.hard - 3600.0 == pytest.approx(fetched.hard, abs=now() - began + 0.01)
    assert adopted.secret == fetched.secret
    assert adopted.lifetime == pytest.approx(fetched.lifetime, abs=0.01)
    assert adopted.soft - adopted.obtained != fetched.soft - fetched.obtained  # each draws its own moment


async def test_a_fleet_whose_token_is_revoked_fetches_once_more(store: RedisServer) -> None:
    issuer = FakeIssuer(delay=0.05)
    async with fleet_of(8, store.url, issuer) as members:
        await tokens_of(members)
        for member in members:
            member.machine.invalidate((await member.machine.get()).generation, "401")
        assert await tokens_of(members) == ["token-2"] * 8
    assert issuer.fetches == 2


async def test_a_rejected_token_in_the_store_is_not_adopted_again(store: RedisServer) -> None:
    issuer = FakeIssuer()
    async with fleet_of(1, store.url, issuer) as (member,):
        credential = await member.machine.get()
        known = Known(credential.generation, None, frozenset({credential.digest}), 0)
        brought = await member.sharing.bring(issuer.fetch, known)
    assert brought.secret.reveal() == "token-2"
    assert brought.generation == 2


async def test_a_stale_member_adopts_what_another_has_renewed(store: RedisServer) -> None:
    issuer = FakeIssuer(lifetime=100.0)
    async with fleet_of(2, store.url, issuer) as (one, two):
        held = await one.machine.get()
        await two.machine.get()
        issuer.lifetime = 200.0
        renewed = await one.sharing.bring(issuer.fetch, Known(1, held, frozenset(), 0))
        adopted = await two.sharing.bring(never, Known(1, held, frozenset(), 0))
    assert renewed.secret == adopted.secret
    assert issuer.fetches == 2


async def test_one_failure_is_the_failure_of_all_and_so_is_its_back_off(store: RedisServer) -> None:
    issuer = FakeIssuer(delay=0.05, error=DOWN)
    async with fleet_of(6, store.url, issuer, uniform=lowest) as members:
        errors = await asyncio.gather(*(failure_of(member.machine.get()) for member in members))
        assert issuer.fetches == 1
        assert all(0 < error.retry_after <= 1.5 for error in errors)
        errors = await asyncio.gather(*(failure_of(member.machine.get()) for member in members))
        assert issuer.fetches == 1
        issuer.error = None
        async with asyncio.timeout(PATIENCE):
            while True:  # healed by the probe that the back-off ends in
                try:
                    assert set(await tokens_of(members)) == {"token-2"}
                    break
                except TokenUnavailable:
                    await asyncio.sleep(0.05)
    assert issuer.fetches == 2


async def test_a_permanent_failure_is_known_to_all_as_one(store: RedisServer) -> None:
    issuer = FakeIssuer(error=REFUSED)
    async with fleet_of(2, store.url, issuer) as (one, two):
        await failure_of(one.machine.get())
        with pytest.raises(TokenFetchError) as caught:
            await two.sharing.bring(never, COLD)
    assert caught.value.permanent
    assert caught.value.retry_after is not None
    assert 25 < caught.value.retry_after <= 60


async def test_a_holder_that_dies_in_mid_fetch_is_missed_for_a_lease(store: RedisServer) -> None:
    hanging, issuer = FakeIssuer(delay=60.0), FakeIssuer()
    async with (
        fleet_of(1, store.url, hanging, lease_seconds=LEASE) as (dying,),
        fleet_of(1, store.url, issuer, lease_seconds=LEASE) as (other,),
    ):
        flight = asyncio.ensure_future(dying.sharing.bring(hanging.fetch, COLD))  # noqa: TID251
        await until(lambda: hanging.flying == 1)
        await cut_off(dying)
        began = time.monotonic()
        assert (await other.machine.get()).secret.reveal() == "token-1"
        assert time.monotonic() - began < LEASE + paced(0.5)
        flight.cancel()
        await asyncio.wait({flight})


async def test_a_holder_that_lives_keeps_its_lease(store: RedisServer) -> None:
    slow, issuer = FakeIssuer(delay=3 * LEASE), FakeIssuer()
    async with (
        fleet_of(1, store.url, slow, lease_seconds=LEASE) as (one,),
        fleet_of(1, store.url, issuer, lease_seconds=LEASE) as (two,),
    ):
        first = asyncio.ensure_future(one.machine.get())  # noqa: TID251
        await until(lambda: slow.flying == 1)
        assert (await two.machine.get()).secret == (await first).secret
    assert issuer.fetches == 0


async def test_a_holder_that_wakes_up_late_does_not_overwrite(
    store: RedisServer, lines: list[EventDict]
) -> None:
    issuer = FakeIssuer()
    async with fleet_of(2, store.url, issuer) as (sleeper, other):
        lease = await sleeper.sharing._take()
        assert lease is not None
        await store.delete("*lease")  # it lapses
        await other.machine.get()
        before = await store.dump()
        late = FetchedToken(Secret("late"), 300.0)
        credential = sleeper.sharing._mint(late, asyncio.get_running_loop().time(), COLD)
        await sleeper.sharing._store(late, credential, lease)
        assert await store.dump() == before
    assert [line["reason"] for line in lines if line["event"] == "token_not_shared"] == [
        "a later one was there"
    ]


async def test_an_emptied_store_begins_a_new_epoch(store: RedisServer) -> None:
    issuer = FakeIssuer()
    async with fleet_of(2, store.url, issuer) as (sleeper, other):
        lease = await sleeper.sharing._take()
        assert lease is not None
        await store.empty()
        await other.sharing.bring(issuer.fetch, COLD)
        before = await store.dump()
        late = FetchedToken(Secret("late"), 300.0)
        later = lease._replace(number=99)  # however high it counted before
        credential = sleeper.sharing._mint(late, asyncio.get_running_loop().time(), COLD)
        await sleeper.sharing._store(late, credential, later)
        assert await store.dump() == before


@pytest.mark.parametrize(("recipe", "fetches"), [(b"another", 1), (RECIPE, 0)])
async def test_another_recipe_never_sees_the_token(store: RedisServer, recipe: bytes, fetches: int) -> None:
    issuer, other = FakeIssuer(), FakeIssuer(token="of-the-other-recipe")
    async with (
        fleet_of(1, store.url, issuer) as (one,),
        fleet_of(1, store.url, other, recipe=recipe) as (two,),
    ):
        await one.machine.get()
        await two.machine.get()
    assert other.fetches == fetches


async def test_nothing_readable_lies_in_the_store(store: RedisServer) -> None:
    issuer = FakeIssuer(token="canary-t0ken")
    async with fleet_of(1, store.url, issuer, recipe=b"url and canary-s3cret") as (member,):
        await member.machine.get()
        found = await store.dump()
    assert len(found) == 3  # record, counter, epoch; no lease is left
    for key, value in found.items():
        assert b"canary" not in key + value
        assert b"corp" not in key + value


async def test_closing_gives_the_lease_back(store: RedisServer) -> None:
    issuer = FakeIssuer(delay=60.0)
    async with fleet_of(1, store.url, issuer) as (member,):
        member.machine.prefetch()
        await until(lambda: issuer.flying == 1)
        assert any(key.endswith(b"lease") for key in await store.dump())
    assert not any(key.endswith(b"lease") for key in await store.dump())
