"""One caller and one token: the result of `get`, when it waits, and when it fails."""

import asyncio

import pytest
from structlog.typing import EventDict

from proxy.credentials import CachedTokenSource, RefreshPolicy, Token
from proxy.credentials.sharing import Fetch, FlightContext
from proxy.errors import TokenUnavailable
from proxy.telemetry import TokenStats
from tests.credentials.fakes import (
    DOWN,
    FakeIssuer,
    at_once,
    build_machine,
    failure_of,
    highest,
    is_healthy,
    lowest,
    pass_time,
    virtually,
)


@virtually
async def test_a_cold_source_fetches_when_it_is_asked() -> None:
    issuer = FakeIssuer(delay=1.0)
    machine = build_machine(issuer)
    assert issuer.fetches == 0
    token = await machine.get()
    assert (token.secret.reveal(), token.generation) == ("token-1", 1)
    assert issuer.fetches == 1


@virtually
async def test_a_fresh_token_is_returned_without_a_wait_or_a_fetch() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=lowest)
    first = await machine.get()
    await pass_time(179.0)  # the refresh is due at 180
    assert at_once(machine.get()) is first
    assert issuer.fetches == 1


@virtually
async def test_prefetch_starts_one_fetch_and_does_not_wait() -> None:
    issuer = FakeIssuer(delay=1.0)
    machine = build_machine(issuer)
    machine.prefetch()
    machine.prefetch()
    await pass_time(2.0)
    assert at_once(machine.get()).generation == 1
    assert issuer.fetches == 1


@virtually
async def test_a_token_in_use_is_refreshed_early_by_a_timer() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=lowest)
    await machine.get()
    await pass_time(181.0)
    assert issuer.fetches == 2
    assert at_once(machine.get()).generation == 2


@virtually
async def test_the_issuers_hint_moves_the_refresh() -> None:
    issuer = FakeIssuer(refresh_in=60.0)
    machine = build_machine(issuer, uniform=highest)
    await machine.get()
    await pass_time(68.0)
    assert issuer.fetches == 2  # 60 s and a ninth


@virtually
async def test_a_token_that_never_expires_is_fetched_once() -> None:
    issuer = FakeIssuer(lifetime=float("inf"))
    machine = build_machine(issuer)
    await machine.get()
    await pass_time(30 * 86400.0)
    assert at_once(machine.get()).generation == 1
    assert issuer.fetches == 1
    assert machine.remaining == float("inf")


@virtually
async def test_remaining_counts_down_to_the_hard_end() -> None:
    machine = build_machine(FakeIssuer(error=None), uniform=highest)
    assert machine.remaining is None
    await machine.get()
    await pass_time(90.0)
    assert machine.remaining == pytest.approx(200.0)


@virtually
async def test_health_is_lost_only_without_a_token_and_with_a_failure() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer)
    assert is_healthy(machine)  # cold
    await machine.get()
    issuer.error = DOWN
    await pass_time(250.0)  # the refresh failed, but the token is valid
    assert issuer.fetches > 1
    assert is_healthy(machine)
    await pass_time(50.0)
    assert not is_healthy(machine)
    issuer.error = None
    await pass_time(60.0)
    assert is_healthy(machine)


@virtually
async def test_a_caller_waits_no_longer_than_it_may() -> None:
    issuer = FakeIssuer(delay=10.0)
    machine = build_machine(issuer, wait_timeout=3.0)
    started = asyncio.get_running_loop().time()
    error = await failure_of(machine.get())
    assert error.reason == "waited too long for a token"
    assert asyncio.get_running_loop().time() - started == pytest.approx(3.0)
    await pass_time(8.0)
    assert at_once(machine.get()).generation == 1  # the flight continued
    assert issuer.fetches == 1


@virtually
async def test_a_fetch_is_limited_by_its_timeout() -> None:
    machine = build_machine(FakeIssuer(delay=100.0), fetch_timeout=5.0)
    started = asyncio.get_running_loop().time()
    error = await failure_of(machine.get())
    assert error.reason == "the token source did not answer in time"
    assert asyncio.get_running_loop().time() - started == pytest.approx(5.0)


@virtually
async def test_waiters_over_the_limit_are_rejected_and_the_others_served() -> None:
    issuer = FakeIssuer(delay=1.0)
    machine = build_machine(issuer, max_waiters=3)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(machine.get()) for _ in range(3)]
        await pass_time(0.1)
        error = await failure_of(machine.get())
    assert error.reason == "too many callers are waiting for a token"
    assert [task.result().generation for task in waiting] == [1, 1, 1]


@virtually
async def test_any_exception_of_a_source_is_an_outage(lines: list[EventDict]) -> None:
    machine = build_machine(FakeIssuer(error=ValueError("the s3cret of the reply")))
    error = await failure_of(machine.get())
    assert error.reason == "the token source failed: ValueError"
    assert [line["event"] for line in lines] == ["token_fetch_failed"]


@virtually
async def test_a_source_that_cancels_itself_is_an_outage_that_heals() -> None:
    issuer = FakeIssuer(error=asyncio.CancelledError())
    machine = build_machine(issuer)
    error = await failure_of(machine.get())
    assert error.reason == "the token source failed: CancelledError"
    assert error.headers["Retry-After"] in {"1", "2"}
    issuer.error = None
    await pass_time(2.0)
    assert at_once(machine.get()).generation == 1


@virtually
async def test_a_token_that_is_expired_on_arrival_is_a_failed_fetch(lines: list[EventDict]) -> None:
    issuer = FakeIssuer(lifetime=5.0, delay=6.0)
    machine = build_machine(issuer)
    error = await failure_of(machine.get())
    assert error.reason == "the token had already expired when it arrived"
    with pytest.raises(TokenUnavailable):
        at_once(machine.get())
    assert issuer.fetches == 1
    assert [line["event"] for line in lines] == ["token_fetch_failed"]


@pytest.mark.parametrize("lifetime", [0.5, 1.5, 1.99, 2.0, 5.0])
@virtually
async def test_a_process_that_slept_through_a_tokens_life_does_not_send_it(lifetime: float) -> None:
    issuer = FakeIssuer(lifetime=lifetime, delay=lifetime + 1.0)  # the reply waited during the sleep
    machine = build_machine(issuer)
    error = await failure_of(machine.get())
    assert (error.status, error.reason) == (503, "the token had already expired when it arrived")
    issuer.delay = 0.1
    await pass_time(2.0)
    assert (await machine.get()).generation > 1


@virtually
async def test_a_token_that_ended_while_the_machine_was_suspended_is_not_sent() -> None:
    """The clock of the event loop stands still meanwhile, and no timer fires."""
    loop, suspended = asyncio.get_running_loop(), 0.0
    issuer = FakeIssuer(lifetime=300.0)
    machine = build_machine(issuer, clock=lambda: loop.time() + suspended)
    assert (await machine.get()).generation == 1
    suspended = 3600.0
    assert (await machine.get()).generation == 2
    assert machine.reading().learned_life_seconds == 0


@virtually
async def test_a_token_that_expires_immediately_serves_its_waiters() -> None:
    issuer = FakeIssuer(lifetime=0.1, delay=1.0)
    machine = build_machine(issuer)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(machine.get()) for _ in range(5)]
    assert {task.result().generation for task in waiting} == {1}
    assert (await machine.get()).generation == 2  # it is not kept
    await pass_time(600.0)
    assert issuer.fetches == 2  # nor refreshed while it is not used


@virtually
async def test_a_hanging_store_does_not_block_the_source_indefinitely() -> None:
    class HangingSharing:
        """A source that never answers."""

        async def obtain(self, fetch: Fetch, known: FlightContext) -> Token:
            await asyncio.sleep(1e6)
            raise AssertionError

        async def look(self, known: FlightContext) -> None:
            return None

    policy = RefreshPolicy(clock=asyncio.get_running_loop().time, flight_timeout=5.0)
    machine = CachedTokenSource("corp", FakeIssuer(), HangingSharing(), policy, TokenStats())
    assert (await failure_of(machine.get())).reason == "the token source did not answer in time"
