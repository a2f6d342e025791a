"""Many callers and one token: one fetch serves all callers, and belongs to none of them."""

import asyncio
import contextvars
import gc
import itertools
import time

import pytest
import structlog
from structlog.typing import EventDict

from proxy.credentials.token import FetchedToken
from proxy.errors import TokenUnavailable
from tests.credentials.fakes import (
    DOWN,
    FakeIssuer,
    at_once,
    build_machine,
    failure_of,
    local_machine,
    lowest,
    pass_time,
    replaced,
    virtually,
)
from tests.pace import paced


@virtually
async def test_five_thousand_cold_callers_cost_one_fetch() -> None:
    issuer = FakeIssuer(delay=0.5)
    machine = build_machine(issuer)
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(machine.get()) for _ in range(5000)]
    assert issuer.fetches == 1
    assert {id(caller.result()) for caller in callers} == {id(callers[0].result())}


@virtually
async def test_a_stale_token_is_returned_at_once_while_one_fetch_runs() -> None:
    issuer = FakeIssuer(delay=5.0)
    machine = build_machine(issuer, uniform=lowest)
    first = await machine.get()
    await pass_time(176.0)  # the refresh is due at 180, counted from before the fetch
    assert issuer.fetches == 2
    assert {at_once(machine.get()).generation for _ in range(1000)} == {first.generation}
    await pass_time(5.0)
    assert issuer.fetches == 2
    assert at_once(machine.get()).generation == 2


@virtually
async def test_the_first_callers_after_an_idle_time_start_one_fetch() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=lowest)
    await machine.get()
    await pass_time(800.0)  # refreshed at 180, 360 and 540; at 720 it had been idle for two lifetimes
    assert issuer.fetches == 4
    assert {at_once(machine.get()).generation for _ in range(1000)} == {4}
    await pass_time(0.0)
    assert issuer.fetches == 5
    assert at_once(machine.get()).generation == 5


@pytest.mark.parametrize("leaving", [slice(0, 1), slice(None, None, 2), slice(None)])
@virtually
async def test_cancelling_waiters_harms_neither_the_others_nor_the_flight(
    leaving: slice,
) -> None:
    issuer = FakeIssuer(delay=1.0)
    machine = build_machine(issuer)
    callers = [asyncio.get_running_loop().create_task(machine.get()) for _ in range(100)]
    await pass_time(0.5)
    gone = callers[leaving]
    for caller in gone:
        caller.cancel()
    await asyncio.wait(callers)
    assert all(caller.cancelled() for caller in gone)
    assert {caller.result().generation for caller in callers if caller not in gone} <= {1}
    await pass_time(1.0)
    assert at_once(machine.get()).generation == 1
    assert issuer.fetches == 1


@virtually
async def test_callers_that_time_out_and_retry_succeed_with_one_fetch() -> None:
    issuer = FakeIssuer(delay=0.35)
    machine = build_machine(issuer)
    outcomes: list[bool] = []
    for _ in range(8):
        try:
            async with asyncio.timeout(0.1):
                await machine.get()
            outcomes.append(True)
        except TimeoutError:
            outcomes.append(False)
    assert outcomes == [False] * 3 + [True] * 5
    assert issuer.fetches == 1


@virtually
async def test_two_thousand_cold_callers_of_a_broken_issuer_fail_together() -> None:
    issuer = FakeIssuer(delay=3.0, error=DOWN)
    machine = build_machine(issuer)
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(failure_of(machine.get())) for _ in range(2000)]
    errors = [caller.result() for caller in callers]
    assert loop.time() - started <= 3.05
    assert issuer.fetches == 1
    assert {(error.reason, error.headers["Retry-After"]) for error in errors} == {
        ("the issuer is down", errors[0].headers["Retry-After"])
    }
    assert len({id(error) for error in errors}) == 2000


@virtually
async def test_a_five_minute_token_under_load_costs_one_fetch_a_window() -> None:
    issuer = FakeIssuer(delay=0.5)
    machine = build_machine(issuer)
    await machine.get()
    for _ in range(450):  # seconds of 1000 requests each
        for _ in range(1000):
            at_once(machine.get())
        await asyncio.sleep(1.0)
    assert issuer.fetches == 3
    assert issuer.most_at_once == 1
    windows = [after - before for before, after in itertools.pairwise(issuer.started)]
    assert all(180.0 <= window <= 225.1 for window in windows)


CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("CALLER", default="nobody")


class ContextReader(FakeIssuer):
    """A source that records the context of its fetches, and logs a line in it."""

    seen: list[str]

    async def fetch(self) -> FetchedToken:
        self.seen.append(CALLER.get())
        structlog.get_logger().info("fetching")
        return await super().fetch()


@virtually
async def test_the_fetch_does_not_inherit_the_context_of_its_request(
    lines: list[EventDict],
) -> None:
    issuer = ContextReader(delay=1.0)
    issuer.seen = []
    machine = build_machine(issuer, uniform=lowest)

    async def request(name: str) -> None:
        CALLER.set(name)
        structlog.contextvars.bind_contextvars(request_id=name)
        await replaced(machine)

    async with asyncio.TaskGroup() as group:
        group.create_task(request("first"))
    await pass_time(200.0)  # the timer starts the third
    assert issuer.seen == ["nobody"] * 3
    ids = {line["event"]: line.get("request_id") for line in lines}
    assert ids == {"fetching": None, "token_fetched": None, "token_rejected": "first"}


async def test_twenty_thousand_waiters_are_cancelled_within_a_second() -> None:
    asleep = asyncio.Event()

    class Sleeper(FakeIssuer):
        async def fetch(self) -> FetchedToken:
            await asleep.wait()
            raise DOWN

    machine = local_machine(Sleeper())
    callers = [asyncio.get_running_loop().create_task(machine.get()) for _ in range(20_000)]
    await asyncio.sleep(0)
    gc.collect()  # outside of the measured time
    started = time.process_time()
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert time.process_time() - started < paced(1.0)
    assert all(caller.cancelled() for caller in callers)
    await machine.close()


@virtually
async def test_rejected_requests_wait_together_for_the_next_token() -> None:
    issuer = FakeIssuer(delay=1.0)
    machine = build_machine(issuer)
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(replaced(machine)) for _ in range(40)]
    assert {caller.result().generation for caller in callers} == {2}
    assert issuer.fetches == 2


@virtually
async def test_callers_of_a_closed_source_get_an_error() -> None:
    machine = build_machine(FakeIssuer())
    await machine.close()
    with pytest.raises(TokenUnavailable) as caught:
        at_once(machine.get())
    assert caught.value.reason == "the service is closing"
