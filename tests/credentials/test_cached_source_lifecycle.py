"""The life of a source: a store that outlives it, idle times, event loops, and its end."""

import asyncio
import gc
import logging
from typing import Any

import pytest

from proxy.credentials import CachedTokenSource, MemoryTokenStore, RefreshPolicy, Token
from tests.credentials.fakes import (
    FakeIssuer,
    at_once,
    build_machine,
    failure_of,
    local_machine,
    lowest,
    pass_time,
    reject,
    replaced,
    serve,
    virtually,
)
from tests.virtual_time import VirtualTimeLoop


@virtually
async def test_each_attempt_sees_the_newest_token() -> None:
    machine = build_machine(FakeIssuer(), uniform=lowest)
    assert (await machine.get()).generation == 1
    await pass_time(181.0)  # such as in a queue for a connection
    assert at_once(machine.get()).generation == 2


async def leave(machine: CachedTokenSource) -> "asyncio.Task[Token]":
    """Start a `get`, and stop the loop during its fetch."""
    waiting = asyncio.get_running_loop().create_task(machine.get())
    await pass_time(1.0)
    return waiting


@pytest.mark.parametrize("first_ends_before", [True, False])
def test_another_event_loop_neither_hangs_nor_awaits_a_foreign_flight(*, first_ends_before: bool) -> None:
    issuer = FakeIssuer(delay=5.0)
    first, second = (asyncio.Runner(loop_factory=VirtualTimeLoop) for _ in range(2))
    with first, second:
        policy = RefreshPolicy(clock=second.get_loop().time)
        machine = local_machine(issuer, policy=policy)
        left = first.run(leave(machine))
        if first_ends_before:
            first.close()
        token = second.run(machine.get())
        assert (token.generation, issuer.fetches) == (1, 2)
        assert second.run(machine.get()) is token
        second.run(machine.close())
    assert left.cancelled()


def test_a_token_serves_on_another_event_loop_and_is_refreshed_there() -> None:
    issuer = FakeIssuer()
    first, second = (asyncio.Runner(loop_factory=VirtualTimeLoop) for _ in range(2))
    with first, second:
        policy = RefreshPolicy(clock=second.get_loop().time, uniform=lowest)
        machine = local_machine(issuer, policy=policy)
        token = first.run(machine.get())
        first.close()

        async def later() -> None:
            assert at_once(machine.get()) is token
            await pass_time(200.0)
            assert at_once(machine.get()) is token  # due for a refresh from here on
            await pass_time(0.0)
            assert at_once(machine.get()).generation == 2

        second.run(later())
    assert issuer.fetches == 2


def test_closing_on_another_event_loop_does_not_hang() -> None:
    issuer = FakeIssuer(delay=5.0)
    first, second = (asyncio.Runner(loop_factory=VirtualTimeLoop) for _ in range(2))
    with first, second:
        policy = RefreshPolicy(clock=second.get_loop().time)
        machine = local_machine(issuer, policy=policy)
        left = first.run(leave(machine))
        second.run(machine.close())
    assert left.cancelled()
    assert issuer.closed == 1


@virtually
async def test_closing_during_a_fetch_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    issuer = FakeIssuer(delay=10.0)
    machine = build_machine(issuer)
    callers = [asyncio.get_running_loop().create_task(failure_of(machine.get())) for _ in range(10)]
    await pass_time(1.0)
    await machine.close()
    reasons = {(await caller).reason for caller in callers}
    assert reasons == {"the service is closing"}
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert (issuer.flying, issuer.closed) == (0, 1)
    await machine.close()  # a second call does nothing
    await pass_time(1000.0)
    assert issuer.fetches == 1
    del machine, callers
    gc.collect()
    assert complaints == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@virtually
async def test_closing_stops_the_early_refresh() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer)
    await machine.get()
    await machine.close()
    machine.prefetch()
    await reject(machine)
    await pass_time(1000.0)
    assert issuer.fetches == 1


@virtually
async def test_a_close_that_is_cancelled_is_cancelled() -> None:
    class Stubborn(FakeIssuer):
        """A source that stops slowly."""

        async def close(self) -> None:
            await asyncio.sleep(100.0)

    machine = build_machine(Stubborn())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await machine.close()


@virtually
async def test_an_unused_credential_is_no_longer_refreshed() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer)
    last = await machine.get()
    used = asyncio.get_running_loop().time()
    await pass_time(86400.0)
    assert issuer.started[-1] - used <= 2 * last.lifetime
    assert 3 <= issuer.fetches <= 4
    assert machine.healthy
    cold = issuer.fetches
    issuer.delay = 1.0
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(machine.get()) for _ in range(100)]
    assert {caller.result().generation for caller in callers} == {cold + 1}
    assert issuer.fetches == cold + 1


@virtually
async def test_a_rebuilt_source_uses_the_token_in_the_store() -> None:
    store, issuer = MemoryTokenStore(), FakeIssuer()
    old = build_machine(issuer, store)
    token = await old.get()
    await old.close()
    anew = build_machine(issuer, store)
    adopted = await anew.get()
    assert (adopted.digest, adopted.expires_at) == (token.digest, token.expires_at)
    assert issuer.fetches == 1
    assert (await replaced(anew)).generation == token.generation + 1
    assert issuer.fetches == 2


@virtually
async def test_a_rebuilt_source_remembers_the_rejected_token() -> None:
    store, issuer = MemoryTokenStore(), FakeIssuer(token="the same")
    token = await build_machine(issuer, store).get()
    anew = build_machine(issuer, store)
    await serve(anew)
    use = await reject(anew)
    assert await use.token() is None  # the issuer returned it again
    assert (await anew.get()).digest == token.digest
    assert issuer.fetches == 2


@virtually
async def test_a_stale_token_in_the_store_is_not_adopted() -> None:
    store, issuer = MemoryTokenStore(), FakeIssuer()
    old = build_machine(issuer, store, uniform=lowest)
    await old.get()
    await old.close()
    await pass_time(181.0)
    assert (await build_machine(issuer, store).get()).generation == 2
    assert issuer.fetches == 2
