"""The token store in memory: it keeps tokens until they expire, and its users fetch one after the other."""

import ast
import asyncio
from pathlib import Path

import aiocache

import proxy
from proxy.credentials import LocalSharing, MemoryTokenStore, RefreshPolicy
from proxy.credentials.sharing import FlightContext
from proxy.credentials.sharing.local import HOLD_SECONDS
from proxy.telemetry import TokenStats
from tests.credentials.fakes import (
    DOWN,
    FakeIssuer,
    build_machine,
    build_token,
    failure_of,
    lowest,
    pass_time,
    reject,
    virtually,
)


@virtually
async def test_a_credential_is_kept_until_its_hard_end() -> None:
    store = MemoryTokenStore()
    token = build_token()
    await store.put(token, "corp", 1000.0)
    await pass_time(289.0)
    assert await store.get("corp") is token
    await pass_time(2.0)
    assert await store.get("corp") is None


@virtually
async def test_each_name_has_its_own_token() -> None:
    store = MemoryTokenStore()
    one, two = build_token("one"), build_token("two")
    await store.put(one, "one", 1000.0)
    await store.put(two, "two", 1000.0)
    assert (await store.get("one"), await store.get("two"), await store.get("three")) == (one, two, None)


@virtually
async def test_a_look_finds_what_another_credential_has_fetched_and_fetches_nothing() -> None:
    policy, store, issuer = (
        RefreshPolicy(clock=asyncio.get_running_loop().time),
        MemoryTokenStore(),
        FakeIssuer(),
    )
    first, second = (LocalSharing("corp", store, policy, TokenStats()) for _ in range(2))
    assert await second.look(FlightContext()) is None
    fetched = await first.obtain(issuer.fetch, FlightContext())
    found = await second.look(FlightContext())
    assert found is not None
    assert (found.digest, found.adopted, issuer.fetches) == (fetched.digest, True, 1)


@virtually
async def test_stores_share_nothing() -> None:
    await MemoryTokenStore().put(build_token(), "corp", 1000.0)
    assert await MemoryTokenStore().get("corp") is None


@virtually
async def test_a_newer_credential_outlives_the_end_of_the_older() -> None:
    store = MemoryTokenStore()
    await store.put(build_token(lifetime=10.0), "corp", 1000.0)
    newer = build_token(generation=2)
    await store.put(newer, "corp", 1000.0)
    await pass_time(20.0)
    assert await store.get("corp") is newer


@virtually
async def test_a_token_without_expiry_is_stored_and_an_expired_one_is_not() -> None:
    store = MemoryTokenStore()
    endless = build_token(lifetime=float("inf"))
    await store.put(endless, "endless", 1000.0)
    await store.put(build_token(), "gone", 1290.0)
    await pass_time(86400.0)
    assert await store.get("endless") is endless
    assert await store.get("gone") is None


@virtually
async def test_closing_forgets_everything() -> None:
    store = MemoryTokenStore()
    await store.put(build_token(), "corp", 1000.0)
    await store.put(build_token(), "other", 1000.0)
    await store.close()
    assert (await store.get("corp"), await store.get("other")) == (None, None)
    await store.close()


def test_only_the_memory_cache_of_aiocache_is_used() -> None:
    """aiocache's decorators log the value when a write fails, and its lock releases all waiters at once."""
    imported: dict[str, list[str]] = {}
    for path in Path(proxy.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiocache"):
                imported.setdefault(path.name, []).extend(alias.name for alias in node.names)
            assert not isinstance(node, ast.Import) or "aiocache" not in {alias.name for alias in node.names}
    assert imported == {"local.py": ["SimpleMemoryCache"]}
    assert aiocache.SimpleMemoryCache is not None


@virtually
async def test_machines_that_share_a_store_fetch_one_token_for_all_at_each_refresh() -> None:
    issuer, store = FakeIssuer(delay=2.0), MemoryTokenStore()
    machines = [build_machine(issuer, store, exclusive=True) for _ in range(3)]
    tokens = await asyncio.gather(*(machine.get() for machine in machines))
    assert len({token.digest for token in tokens}) == issuer.fetches == 1
    assert sorted(token.adopted for token in tokens) == [False, True, True]
    assert sorted(machine.stats.adopted for machine in machines) == [0, 1, 1]
    await pass_time(230.0)
    tokens = [await machine.get() for machine in machines]
    assert len({token.digest for token in tokens}) == 1
    assert (issuer.fetches, issuer.most_at_once) == (2, 1)


@virtually
async def test_a_rejected_token_is_replaced_once_for_all() -> None:
    issuer, store = FakeIssuer(), MemoryTokenStore()
    machines = [build_machine(issuer, store, exclusive=True) for _ in range(3)]
    for machine in machines:
        await machine.get()
    await pass_time(1.0)
    uses = [await reject(machine) for machine in machines]
    tokens = [await use.token() for use in uses]
    assert len({token and token.digest for token in tokens}) == 1
    assert issuer.fetches == 2


@virtually
async def test_when_the_fetch_is_cancelled_the_next_one_fetches() -> None:
    issuer, store = FakeIssuer(delay=5.0), MemoryTokenStore()
    first, second, third = (build_machine(issuer, store, exclusive=True) for _ in range(3))
    callers = [asyncio.get_running_loop().create_task(machine.get()) for machine in (first, second, third)]
    await pass_time(1.0)
    await first.close()
    await asyncio.wait(callers)
    assert callers[0].exception() is not None
    assert len({caller.result().digest for caller in callers[1:]}) == 1
    assert (issuer.fetches, issuer.most_at_once) == (2, 1)


@virtually
async def test_a_cancelled_wait_does_not_disturb_the_fetch() -> None:
    issuer, store = FakeIssuer(delay=5.0), MemoryTokenStore()
    first, second, third = (build_machine(issuer, store, exclusive=True) for _ in range(3))
    callers = [asyncio.get_running_loop().create_task(machine.get()) for machine in (first, second, third)]
    await pass_time(1.0)
    await second.close()
    await asyncio.wait(callers)
    assert callers[1].exception() is not None
    assert callers[0].result().digest == callers[2].result().digest
    assert issuer.fetches == 1


@virtually
async def test_after_a_failed_fetch_each_one_tries_itself_in_turn() -> None:
    issuer, store = FakeIssuer(delay=1.0, error=DOWN), MemoryTokenStore()
    machines = [build_machine(issuer, store, exclusive=True) for _ in range(2)]
    await asyncio.gather(*(failure_of(machine.get()) for machine in machines))
    assert (issuer.fetches, issuer.most_at_once) == (2, 1)


@virtually
async def test_a_fetch_that_hangs_delays_independent_tokens_for_a_while_only() -> None:
    hanging, issuer, store = FakeIssuer(delay=14.0, prefix="late-"), FakeIssuer(), MemoryTokenStore()
    first, second = build_machine(hanging, store), build_machine(issuer, store)
    slow = asyncio.get_running_loop().create_task(first.get())
    await pass_time(0.0)
    clock = asyncio.get_running_loop().time
    began = clock()
    await second.get()
    assert clock() - began == HOLD_SECONDS
    assert (await slow).digest != (await second.get()).digest
    assert (hanging.fetches, issuer.fetches) == (1, 1)


@virtually
async def test_a_token_is_adopted_with_the_life_that_its_new_user_has_observed() -> None:
    issuer, store = FakeIssuer(), MemoryTokenStore()
    await build_machine(issuer, store, uniform=lowest).get()
    observer = build_machine(issuer, store, uniform=lowest)
    observer._observed.life.seconds = 60.0
    token = await observer.get()
    assert token.lifetime <= 60.0
    assert issuer.fetches == 1
