"""A fleet with one Redis: one fetch serves all members, also if one of them fails, leaves or joins late."""

import asyncio
import contextlib
import functools
import itertools
import math
import time
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.typing import EventDict

from proxy.credentials.sharing import FlightContext, fleet
from proxy.credentials.sharing.fleet import (
    BUSY_SECONDS,
    HOLD_MARGIN_SECONDS,
    HOLD_SECONDS_MIN,
    LEASE_SECONDS_MAX,
    RENEW_FRACTION,
    SUCCESSOR_SECONDS,
)
from proxy.credentials.sharing.scripts import ACQUIRE, FAIL, KEEP, PARTS, STORE
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.token import FetchedToken
from proxy.redis_connection import StoreUnavailable, expect_list
from tests.credentials.fakes import BUSY, DOWN, REFUSED, FakeIssuer, failure_of, lowest
from tests.credentials.sharing.fleet_members import (
    RECIPE,
    cut_off,
    fleet_of,
    healed,
    replacements,
    scripts_of,
    tokens_of,
)
from tests.loopback import until
from tests.pace import PATIENCE
from tests.redis_server import RedisServer
from tests.virtual_time import leap
from tests.waiting import look_again

pytestmark = pytest.mark.usefixtures("unhurried")

LEASE = 0.3
COLD = FlightContext()


async def never() -> FetchedToken:
    """Fail, because nothing may be fetched."""
    raise AssertionError("it fetched")


async def test_a_cold_fleet_fetches_once(store: RedisServer) -> None:
    issuer = FakeIssuer(delay=0.1)
    async with fleet_of(8, store.url, issuer) as members:
        assert await tokens_of(members) == ["token-1"] * 8
        assert sum(member.sharing.stats.adopted for member in members) == 7
    assert issuer.fetches == 1


@pytest.mark.parametrize("lifetime", [100.0, math.inf])
async def test_a_look_finds_a_newer_token_once_and_fetches_nothing(
    store: RedisServer, lifetime: float
) -> None:
    issuer = FakeIssuer(lifetime=lifetime)
    async with fleet_of(2, store.url, issuer, exclusive=True) as (first, second):
        assert await second.sharing.look(COLD) is None
        old = await first.machine.get()
        held = FlightContext(generation=1, current=await second.machine.get(), exclusive=True)
        assert await second.sharing.look(held) is None
        newer = await first.sharing.obtain(issuer.fetch, replace(held, rejected=frozenset({old.digest})))
        found = await second.sharing.look(held)
        assert found is not None
        assert (found.digest, found.adopted) == (newer.digest, True)
        assert await second.sharing.look(held) is None
        # A member whose token could not be stored does not go back to the one in the record.
        latest = replace(newer, digest=b"latest", obtained=asyncio.get_running_loop().time())
        assert await first.sharing.look(replace(held, current=latest)) is None
        await cut_off(second)
        assert await second.sharing.look(held) is None
    assert issuer.fetches == 2


async def test_a_late_member_adopts_the_remaining_lifetime_whatever_its_clock(
    store: RedisServer,
) -> None:
    issuer = FakeIssuer(lifetime=100.0)
    now = asyncio.get_running_loop().time
    async with (
        fleet_of(1, store.url, issuer) as (first,),
        fleet_of(1, store.url, issuer, clock=lambda: now() + 3600.0) as (late,),
    ):
        began = now()
        fetched = await first.machine.get()
        adopted = await late.machine.get()
        assert adopted.expires_at - 3600.0 == pytest.approx(fetched.expires_at, abs=now() - began + 0.01)
    assert adopted.secret == fetched.secret
    assert adopted.lifetime == pytest.approx(fetched.lifetime, abs=0.01)
    assert (
        adopted.refresh_at - adopted.obtained != fetched.refresh_at - fetched.obtained
    )  # each chooses a random time


async def test_a_fleet_whose_token_is_revoked_fetches_once_more(store: RedisServer) -> None:
    issuer = FakeIssuer(delay=0.05)
    async with fleet_of(8, store.url, issuer) as members:
        await tokens_of(members)
        assert await replacements(members) == ["token-2"] * 8
        assert await tokens_of(members) == ["token-2"] * 8
    assert issuer.fetches == 2


async def test_a_rejected_token_in_the_store_is_not_adopted_again(store: RedisServer) -> None:
    issuer = FakeIssuer()
    async with fleet_of(1, store.url, issuer) as (member,):
        token = await member.machine.get()
        known = FlightContext(token.generation, rejected=frozenset({token.digest}))
        brought = await member.sharing.obtain(issuer.fetch, known)
    assert brought.secret.reveal() == "token-2"
    assert brought.generation == 2


async def test_a_stale_member_adopts_the_token_that_another_refreshed(store: RedisServer) -> None:
    issuer = FakeIssuer(lifetime=100.0)
    async with fleet_of(2, store.url, issuer) as (one, two):
        held = await one.machine.get()
        await two.machine.get()
        issuer.lifetime = 200.0
        renewed = await one.sharing.obtain(issuer.fetch, FlightContext(1, held))
        adopted = await two.sharing.obtain(never, FlightContext(1, held))
    assert renewed.secret == adopted.secret
    assert issuer.fetches == 2


# --- errors of the issuer, and errors that only one member gets


async def test_a_network_failure_affects_only_its_member(store: RedisServer) -> None:
    broken, issuer = FakeIssuer(error=DOWN), FakeIssuer()
    async with fleet_of(1, store.url, broken) as (bad,), fleet_of(5, store.url, issuer) as members:
        assert (await failure_of(bad.machine.get())).reason == "the issuer is down"
        assert set(await tokens_of(members)) == {"token-1"}
        await healed(bad)
        assert (await bad.machine.get()).secret.reveal() == "token-1"  # adopted from another member
    assert issuer.fetches == 1


@pytest.mark.parametrize("said", [REFUSED, BUSY, TokenFetchError("busy", retry_after=60, has_reply=True)])
async def test_a_refusal_of_one_member_does_not_stop_the_others(
    store: RedisServer, said: TokenFetchError
) -> None:
    """The cause may be the network of that member only."""
    forbidden, issuer = FakeIssuer(error=said), FakeIssuer()
    async with fleet_of(1, store.url, forbidden) as (bad,), fleet_of(5, store.url, issuer) as members:
        error = await failure_of(bad.machine.get())
        assert error.status == 503  # another member may do better
        await bad.machine.close()  # before it tries again
        assert all(left <= BUSY_SECONDS for left in (await store.lifetimes("*:failure")).values())
        assert not await store.lifetimes("*:lease")
        assert set(await tokens_of(members)) == {"token-1"}
        assert forbidden.fetches == issuer.fetches == 1


@pytest.mark.parametrize("step", [ACQUIRE, STORE, FAIL], ids=["lease taken", "token stored", "failure noted"])
@pytest.mark.parametrize("executed", [True, False])
async def test_a_member_that_closes_at_any_step_leaves_no_lease(
    store: RedisServer, monkeypatch: pytest.MonkeyPatch, step: str, *, executed: bool
) -> None:
    """The next process, such as this one after a restart, would wait until it expires."""
    issuer = FakeIssuer(error=REFUSED if step == FAIL else None)
    async with fleet_of(1, store.url, issuer) as (member,):
        run_script, reached = member.redis.run_script, asyncio.Event()

        async def stuck(script: str, *arguments: Any, **options: Any) -> object:
            if script != step:
                return await run_script(script, *arguments, **options)
            if executed:
                await run_script(script, *arguments, **options)
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(member.redis, "run_script", stuck)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(failure_of(member.machine.get()))
            await reached.wait()
            await member.machine.close()
            await asking
        assert not await store.lifetimes("*:lease")


@pytest.mark.parametrize("hosts", [1, 3])
async def test_a_healthy_member_is_not_stopped_by_refusals_of_others(
    store: RedisServer, monkeypatch: pytest.MonkeyPatch, hosts: int
) -> None:
    """Their firewall may answer, whether they are on one host or on several."""
    forbidden, issuer = FakeIssuer(error=REFUSED), FakeIssuer()
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        refused = [
            (await enter(fleet_of(1, store.url, forbidden, host=b"host %d" % (number % hosts))))[0]
            for number in range(6)
        ]
        for _ in range(3):
            await asyncio.gather(*(failure_of(member.machine.get()) for member in refused))
            leap(monkeypatch, 1.0)
        for member in refused:
            await member.machine.close()  # before it tries again
        (healthy,) = await enter(fleet_of(1, store.url, issuer))
        assert (await healthy.machine.get()).secret.reveal() == "token-1"


@pytest.mark.parametrize("said", [REFUSED, BUSY])
async def test_all_processes_of_a_host_are_one_witness(store: RedisServer, said: TokenFetchError) -> None:
    forbidden = FakeIssuer(error=said)
    async with fleet_of(4, store.url, forbidden, host=b"one host") as members:
        for member in members:
            await failure_of(member.machine.get())
        assert all(left <= BUSY_SECONDS for left in (await store.lifetimes("*:failure")).values())
        assert [value for key, value in (await store.dump()).items() if key.endswith(b":witness")] != [b"*"]


def test_two_services_of_a_host_have_the_same_identity() -> None:
    assert fleet.this_host() == fleet.this_host() != b" "


@pytest.mark.parametrize(("permanent", "status", "asked"), [(True, 502, 6), (False, 503, 2)])
async def test_a_refusal_of_two_members_pauses_all(
    store: RedisServer, monkeypatch: pytest.MonkeyPatch, *, permanent: bool, status: int, asked: int
) -> None:
    """If the issuer is busy, two members are enough; if it rejects them, each member asks once."""
    loop, pause = asyncio.get_running_loop(), 30.0

    def clock() -> float:
        return loop.time()  # looked up each time, because the clock leaps

    issuer = FakeIssuer(
        error=TokenFetchError("not now", permanent=permanent, retry_after=pause, has_reply=True)
    )
    async with fleet_of(6, store.url, issuer, clock=clock) as members:
        errors = await asyncio.gather(*(failure_of(member.machine.get()) for member in members))
        assert issuer.fetches == asked
        assert sorted(error.status for error in errors)[-5:] == sorted([503, *[status] * 5])[-5:]
        errors = await asyncio.gather(*(failure_of(member.machine.get()) for member in members))
        assert issuer.fetches == asked
        issuer.error = None
        await store.delete("*:failure")
        leap(monkeypatch, pause + BUSY_SECONDS)
        await asyncio.gather(*(healed(member) for member in members))
        assert set(await tokens_of(members)) == {f"token-{asked + 1}"}
    assert issuer.fetches == asked + 1


async def test_a_retry_after_received_by_two_members_pauses_all(
    store: RedisServer,
) -> None:
    issuer = FakeIssuer(error=TokenFetchError("busy", retry_after=120, has_reply=True))
    async with fleet_of(4, store.url, issuer, uniform=lowest) as members:
        for _ in range(3):
            errors = await asyncio.gather(*(failure_of(member.machine.get()) for member in members))
        assert issuer.fetches == 2
        assert all(100 < int(error.headers["Retry-After"]) <= 121 for error in errors)


async def test_a_fleet_retries_a_refused_fetch_no_more_often_than_one_member(store: RedisServer) -> None:
    issuer = FakeIssuer(error=REFUSED)
    async with fleet_of(6, store.url, issuer) as members:
        began = time.monotonic()
        for member in members:
            member.machine.prefetch()
        async with asyncio.timeout(PATIENCE):
            while issuer.fetches < 9:
                await look_again()
        assert issuer.fetches <= len(members) + (time.monotonic() - began) / 0.5
        issuer.error = None
        await asyncio.gather(*(healed(member) for member in members))


async def test_a_single_member_accepts_a_repeated_refusal(store: RedisServer) -> None:
    issuer = FakeIssuer(error=REFUSED)
    async with fleet_of(1, store.url, issuer) as (member,):
        statuses: list[int] = []
        while issuer.fetches < 4:
            statuses.append((await failure_of(member.machine.get())).status)
            await look_again()
    assert statuses[0] == 503
    assert statuses[-1] == 502


# --- fetches that do not end


async def test_a_fetch_that_hangs_loses_its_lease_and_adopts_what_another_member_fetches(
    store: RedisServer,
) -> None:
    hanging, issuer = FakeIssuer(delay=60.0), FakeIssuer()
    async with (
        fleet_of(1, store.url, hanging, lease_seconds=LEASE) as (one,),
        fleet_of(5, store.url, issuer) as members,
    ):
        scripts = scripts_of(one)
        first = asyncio.ensure_future(one.machine.get())  # noqa: TID251
        await until(lambda: hanging.flying == 1)
        await blocks_others_for_at_most(LEASE, store)
        assert set(await tokens_of(members)) == {"token-1"}
        assert KEEP not in scripts  # nothing has extended the lease
        assert (await first).secret.reveal() == "token-1"
        await until(lambda: hanging.flying == 0)
    assert issuer.fetches == 1


async def blocks_others_for_at_most(seconds: float, store: RedisServer) -> None:
    """Check how long the current lease still lasts, which may have ended by now."""
    assert all(left <= seconds for left in (await store.lifetimes("*:lease")).values())


async def test_a_second_fetch_that_hangs_costs_less_than_the_first(
    store: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "SUCCESSOR_SECONDS", SUCCESSOR_SECONDS)
    hanging, issuer = FakeIssuer(delay=60.0), FakeIssuer()
    async with (
        fleet_of(2, store.url, hanging, lease_seconds=2.0) as two,
        fleet_of(4, store.url, issuer) as members,
    ):
        scripts = [scripts_of(member) for member in two]
        for number, member in enumerate(two):
            member.machine.prefetch()
            await until(functools.partial(fly, hanging, number + 1))
        await blocks_others_for_at_most(SUCCESSOR_SECONDS, store)
        monkeypatch.setattr(fleet, "SUCCESSOR_SECONDS", PATIENCE)
        assert set(await tokens_of(members)) == {"token-1"}
        assert KEEP not in itertools.chain(*scripts)


def fly(issuer: FakeIssuer, count: int) -> bool:
    """Return whether this many fetches are running."""
    return issuer.flying == count


@dataclass
class LateIssuer(FakeIssuer):
    """An issuer whose fetches alone let time pass."""

    seconds: float = 0.0
    now: float = 0.0

    def clock(self) -> float:
        """Return the time."""
        return self.now

    async def fetch(self) -> FetchedToken:
        """Let time pass, and fetch."""
        self.now += self.seconds
        return await super().fetch()


async def test_a_lease_is_as_long_as_the_last_fetch_took_and_no_longer(
    store: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "HOLD_SECONDS_MIN", HOLD_SECONDS_MIN)
    issuer = LateIssuer(seconds=0.1)
    async with fleet_of(1, store.url, issuer, clock=issuer.clock, lease_seconds=2.0) as (member,):
        assert member.sharing._hold() == 2.0
        await member.machine.get()
        assert member.sharing._hold() == HOLD_SECONDS_MIN
        issuer.seconds = 0.8
        await member.sharing.obtain(issuer.fetch, FlightContext())
        assert member.sharing._hold() == HOLD_SECONDS_MIN  # it found the record in Redis
        rejected = frozenset({(await member.machine.get()).digest})
        await member.sharing.obtain(issuer.fetch, FlightContext(rejected=rejected))
        assert member.sharing._hold() == pytest.approx(0.8 + HOLD_MARGIN_SECONDS)


async def test_the_member_that_fetched_last_refreshes_first(store: RedisServer) -> None:
    async with fleet_of(6, store.url, FakeIssuer()) as members:
        await tokens_of(members)
        held = [await member.machine.get() for member in members]
        leader = next(one for one in held if not one.adopted)
        assert all(leader.refresh_at < one.refresh_at for one in held if one.adopted)


async def test_a_fetch_from_a_revoking_issuer_is_never_overtaken(
    store: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = asyncio.Event()
    slow, issuer = FakeIssuer(released=released), FakeIssuer()
    exclusive: dict[str, Any] = {"exclusive": True, "required": True, "lease_seconds": 20.0}
    async with (
        fleet_of(1, store.url, slow, **exclusive) as (one,),
        fleet_of(3, store.url, issuer, **exclusive) as members,
    ):
        scripts = scripts_of(one)
        first = asyncio.ensure_future(one.machine.get())  # noqa: TID251
        await until(lambda: slow.flying == 1)
        leap(monkeypatch, 20.0 * RENEW_FRACTION)
        await until(lambda: KEEP in scripts)  # while the fetch lasts
        others = asyncio.ensure_future(tokens_of(members))  # noqa: TID251
        await until(lambda: all(member.machine.reading().waiters for member in members))
        released.set()
        assert {*await others} == {(await first).secret.reveal()}
    assert (slow.fetches, issuer.fetches) == (1, 0)


async def test_a_lease_is_renewed_no_longer_than_a_fetch_may_take(store: RedisServer) -> None:
    """Nothing renews a lease for ever, even if the fetch never ends."""
    hanging = FakeIssuer(delay=60.0)
    async with fleet_of(
        1, store.url, hanging, lease_seconds=LEASE, exclusive=True, required=True, fetch_timeout=2 * LEASE
    ) as (member,):
        scripts = scripts_of(member)
        flight = asyncio.ensure_future(member.sharing.obtain(hanging.fetch, COLD))  # noqa: TID251
        await until(lambda: hanging.flying == 1)
        await until(lambda: not any(task.get_name() == "token-lease" for task in asyncio.all_tasks()))
        assert scripts == [ACQUIRE, *[KEEP] * math.ceil(2 / RENEW_FRACTION)]
        await blocks_others_for_at_most(LEASE, store)
        flight.cancel()
        await asyncio.wait({flight})


async def test_a_renewal_that_fails_does_not_end_the_renewals(store: RedisServer) -> None:
    hanging = FakeIssuer(delay=60.0)
    async with fleet_of(1, store.url, hanging, lease_seconds=LEASE, exclusive=True, required=True) as (
        member,
    ):
        renewals, run_script = list[object](), member.redis.run_script

        async def interrupted(script: str, *arguments: Any, **options: Any) -> object:
            if script != KEEP:
                return await run_script(script, *arguments, **options)
            renewals.append(None)
            if len(renewals) == 1:
                await store.persist("*:lease")  # however late the test is, the lease has not expired
                raise StoreUnavailable("no reply in time")
            renewals[-1] = await run_script(script, *arguments, **options)
            return renewals[-1]

        member.redis.run_script = interrupted  # type: ignore[method-assign]
        flight = asyncio.ensure_future(member.sharing.obtain(hanging.fetch, COLD))  # noqa: TID251
        await until(lambda: len(renewals) == 3)
        assert renewals[:2] == [None, 1]
        flight.cancel()
        await asyncio.wait({flight})


async def test_a_lost_lease_is_not_renewed(store: RedisServer) -> None:
    hanging = FakeIssuer(delay=60.0)
    async with fleet_of(1, store.url, hanging, lease_seconds=LEASE, exclusive=True, required=True) as (
        member,
    ):
        scripts = scripts_of(member)
        flight = asyncio.ensure_future(member.sharing.obtain(hanging.fetch, COLD))  # noqa: TID251
        await until(lambda: hanging.flying == 1)
        await store.delete("*:lease")
        await until(lambda: not any(task.get_name() == "token-lease" for task in asyncio.all_tasks()))
        assert hanging.flying == 1
        assert scripts.count(KEEP) <= 2  # one may have been in time
        flight.cancel()
        await asyncio.wait({flight})


async def test_a_holder_that_dies_while_fetching_blocks_others_for_one_lease(store: RedisServer) -> None:
    hanging, issuer = FakeIssuer(delay=60.0), FakeIssuer()
    async with (
        fleet_of(1, store.url, hanging, lease_seconds=LEASE) as (dying,),
        fleet_of(1, store.url, issuer) as (other,),
    ):
        flight = asyncio.ensure_future(dying.sharing.obtain(hanging.fetch, COLD))  # noqa: TID251
        await until(lambda: hanging.flying == 1)
        await cut_off(dying)
        await blocks_others_for_at_most(LEASE, store)
        assert (await other.machine.get()).secret.reveal() == "token-1"
        flight.cancel()
        await asyncio.wait({flight})


async def test_a_holder_that_wakes_up_late_does_not_overwrite_and_takes_the_later_token(
    store: RedisServer, lines: list[EventDict]
) -> None:
    released = asyncio.Event()
    slow, issuer = FakeIssuer(released=released), FakeIssuer(token="later")
    async with (
        fleet_of(1, store.url, slow, exclusive=True, required=True) as (sleeper,),
        fleet_of(1, store.url, issuer, exclusive=True, required=True) as (other,),
    ):
        flight = asyncio.ensure_future(sleeper.sharing.obtain(slow.fetch, COLD))  # noqa: TID251
        await until(lambda: slow.flying == 1)
        await store.delete("*lease")  # the lease expires, as if the holder had slept
        await other.machine.get()
        before = await store.dump()
        released.set()
        assert (await flight).secret.reveal() == "later"  # which may have revoked its own token
        assert await store.dump() == before
    assert [line["reason"] for line in lines if line["event"] == "token_not_shared"] == [
        "there is a later one"
    ]


@pytest.mark.parametrize("was_faster", [True, False])
async def test_an_emptied_store_begins_a_new_epoch(store: RedisServer, *, was_faster: bool) -> None:
    released = asyncio.Event()
    slow, issuer = FakeIssuer(released=released, token="slow"), FakeIssuer()
    async with fleet_of(2, store.url, slow) as (holder, third), fleet_of(1, store.url, issuer) as (other,):
        flight = asyncio.ensure_future(holder.machine.get())  # noqa: TID251
        await until(lambda: slow.flying == 1)
        await store.empty()
        if was_faster:
            await other.machine.get()
        released.set()
        await flight
        assert (await third.machine.get()).secret.reveal() == ("token-1" if was_faster else "slow")
    assert issuer.fetches == int(was_faster)
    assert slow.fetches == 1


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


async def test_redis_contains_no_plain_text(store: RedisServer) -> None:
    issuer = FakeIssuer(token="canary-t0ken")
    async with fleet_of(1, store.url, issuer, recipe=b"url and canary-s3cret") as (member,):
        await member.machine.get()
        found = await store.dump()
    assert len(found) == 3  # record, counter, epoch; no lease is left
    for key, value in found.items():
        assert b"canary" not in key + value
        assert b"corp" not in key + value


async def test_closing_releases_the_lease(store: RedisServer) -> None:
    issuer = FakeIssuer(delay=60.0)
    async with fleet_of(1, store.url, issuer) as (member,):
        member.machine.prefetch()
        await until(lambda: issuer.flying == 1)
        assert any(key.endswith(b"lease") for key in await store.dump())
    assert not any(key.endswith(b"lease") for key in await store.dump())


@pytest.mark.parametrize("evicted", [["counter"], ["epoch"], ["counter", "epoch"]])
async def test_a_token_is_shared_although_redis_evicted_the_count_of_leases(
    store: RedisServer, evicted: list[str]
) -> None:
    issuer, rejected = FakeIssuer(), frozenset[bytes]()
    async with fleet_of(2, store.url, issuer) as (one, two):
        for fetch in range(4):
            if fetch == 3:
                for part in evicted:
                    await store.delete(f"*:{part}")
            token = await one.sharing.obtain(issuer.fetch, FlightContext(rejected=rejected))
            rejected |= {token.digest}
        assert (await two.machine.get()).digest == token.digest
    assert issuer.fetches == 4


@pytest.mark.parametrize("days", [30, 100, 365])
async def test_a_member_that_joins_late_adopts_a_token_of_any_lifetime(store: RedisServer, days: int) -> None:
    issuer = FakeIssuer(lifetime=days * 86400.0)
    async with fleet_of(4, store.url, issuer, exclusive=True, required=True) as members:
        tokens = [await member.machine.get() for member in members]
        now = asyncio.get_running_loop().time()
        assert all(token.refresh_at > now + 0.5 * token.lifetime for token in tokens)
    assert issuer.fetches == 1


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *itertools.product(
            ["lease", "failure", "witness", "failures", "late"], [b"", b" ", b"1 \xff", b"text", None]
        ),
        *itertools.product(["record"], [b"", b" ", b"text", b"old.9 sealed"]),
    ],
)
@pytest.mark.parametrize("required", [True, False])
async def test_a_key_without_expiry_does_not_block_the_fleet(
    store: RedisServer, part: str, value: bytes | None, *, required: bool
) -> None:
    async with fleet_of(1, store.url, FakeIssuer()) as (first,):
        await first.machine.get()
        (counter,) = expect_list(bytes, await first.redis.run("KEYS", "*:counter"))
        await first.redis.run("FLUSHALL")
    async with fleet_of(2, store.url, FakeIssuer(), required=required) as (member, other):
        scripts = scripts_of(member)
        key = counter.decode().replace(":counter", f":{part}")
        await member.redis.run(*(("RPUSH", key, "text") if value is None else ("SET", key, value)))
        assert await tokens_of([member]) == ["token-1"]
        assert scripts in ([ACQUIRE, STORE], [ACQUIRE, ACQUIRE, STORE])  # a record is read once
        assert await tokens_of([other]) == ["token-1"]  # the token was stored


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *itertools.product(["lease"], [b"", b"another owner"]),
        *itertools.product(["failure"], [b"", b"text", b"0 busy", b"1 busy", b"1 refused", b"1 \xff"]),
        *itertools.product(["record"], [b"a\tb c", b"a\tb", b"\t", b"\n ", b"a\0b c"]),
    ],
)
async def test_a_foreign_value_that_expires_in_an_hour_does_not_block_the_fleet(
    store: RedisServer, monkeypatch: pytest.MonkeyPatch, part: str, value: bytes
) -> None:
    monkeypatch.setattr(fleet, "LEASE_SECONDS_MAX", LEASE_SECONDS_MAX)
    async with fleet_of(1, store.url, FakeIssuer(), required=True, lease_seconds=2.0) as (member,):
        scripts = scripts_of(member)
        await member.redis.run("SET", member.sharing._keys[PARTS.index(part)], value, "PX", 3_600_000)
        assert await tokens_of([member]) == ["token-1"]
        assert scripts in ([ACQUIRE, STORE], [ACQUIRE, ACQUIRE, STORE])  # a record is read once
