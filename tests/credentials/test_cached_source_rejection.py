"""The upstream refuses a token: which one is meant, what it costs, when it is given up."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from structlog.typing import EventDict

from proxy.credentials import CachedTokenSource, Credential, RefreshPolicy
from proxy.credentials.credential import mint
from proxy.credentials.sharing import Fetch, Known
from proxy.telemetry import TokenStats
from tests.credentials.fakes import (
    DOWN,
    FakeIssuer,
    at_once,
    build_machine,
    failure_of,
    highest,
    lowest,
    pass_time,
    virtually,
)


@dataclass
class RefusingUpstream:
    """Answers 401 to all it is sent, to a client that keeps the rules: one replay, with another token."""

    machine: CachedTokenSource
    sent: list[str] = field(default_factory=list)

    async def request(self) -> int:
        """How often one request was sent."""
        credential = await self.machine.get()
        self.sent.append(credential.secret.reveal())
        self.machine.invalidate(credential.generation, "401")
        fresh = await self.machine.get()
        if fresh.digest == credential.digest:
            return 1
        self.sent.append(fresh.secret.reveal())
        self.machine.invalidate(fresh.generation, "401")
        return 2


@virtually
async def test_a_thousand_rejections_of_one_generation_cost_one_fetch() -> None:
    issuer = FakeIssuer(delay=1.0)
    machine = build_machine(issuer)
    first = await machine.get()
    for _ in range(1000):
        machine.invalidate(first.generation, "401")
    assert (await machine.get()).generation == 2
    assert issuer.fetches == 2


@virtually
async def test_a_late_rejection_of_an_old_generation_costs_nothing(
    lines: list[EventDict],
) -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=lowest)
    first = await machine.get()
    await pass_time(181.0)
    second = at_once(machine.get())
    machine.invalidate(first.generation, "401")
    machine.invalidate(second.generation + 1, "401")  # nor does one that was never issued
    await pass_time(1.0)
    assert at_once(machine.get()) is second
    assert issuer.fetches == 2
    assert "token_rejected" not in [line["event"] for line in lines]


@virtually
async def test_a_rejection_of_an_expired_token_does_not_use_up_the_forced_refresh() -> None:
    issuer = FakeIssuer(lifetime=1.0)
    machine = build_machine(issuer)
    first = await machine.get()
    await pass_time(2.0)
    machine.invalidate(first.generation, "401")
    issuer.lifetime = 300.0
    second = await machine.get()
    machine.invalidate(second.generation, "401")
    assert (await machine.get()).generation == 3


@pytest.mark.parametrize("token", [None, "the same"])
@virtually
async def test_an_upstream_that_always_refuses_costs_two_sends_a_request_and_few_fetches(
    token: str | None,
) -> None:
    issuer = FakeIssuer(token=token, delay=0.01)
    machine = build_machine(issuer)
    upstream = RefusingUpstream(machine)
    sends = []
    for _ in range(6000):  # 600 s of 10 requests a second
        sends.append(await upstream.request())
        await asyncio.sleep(0.1)
    assert max(sends) <= 2
    # One to begin with, then forced ones at 0, 5, 15, 35, 75, 135 s and each minute from there.
    assert 10 <= issuer.fetches <= 14


@virtually
async def test_the_limit_forgets_when_all_was_quiet() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer)
    for _ in range(50):
        credential = await machine.get()
        machine.invalidate(credential.generation, "401")
        await pass_time(20.0)
    assert issuer.fetches == 51


@virtually
async def test_an_issuer_that_gives_the_rejected_token_again_is_asked_once_a_cooldown() -> None:
    issuer = FakeIssuer(token="the same")
    machine = build_machine(issuer)
    first = await machine.get()
    machine.invalidate(first.generation, "401")
    again = await machine.get()  # it came after the rejection: there is nothing better
    assert (again.generation, again.digest) == (2, first.digest)
    for _ in range(1000):
        machine.invalidate(at_once(machine.get()).generation, "401")
    assert issuer.fetches == 2
    await pass_time(5.1)
    machine.invalidate(again.generation, "401")
    assert (await machine.get()).generation == 3
    assert issuer.fetches == 3


@virtually
async def test_within_the_cooldown_a_rejected_token_is_kept(lines: list[EventDict]) -> None:
    machine = build_machine(FakeIssuer())
    for _ in range(2):
        credential = await machine.get()
        machine.invalidate(credential.generation, "401")
    assert at_once(machine.get()).generation == 2
    assert [line["generation"] for line in lines if line["event"] == "token_rejected"] == [1]
    assert (machine.stats.rejections, machine.stats.rejections_without_effect) == (1, 1)


@virtually
async def test_a_fetch_that_left_before_the_rejection_cannot_bring_the_token_back() -> None:
    issuer = FakeIssuer(token="old")
    machine = build_machine(issuer, uniform=lowest)
    await machine.get()
    issuer.delay = 5.0
    await pass_time(181.0)  # the refresh is in the air, and will bring "old"
    issuer.token = "new"
    machine.invalidate(1, "401")
    credential = await machine.get()
    assert credential.secret.reveal() == "new"
    assert issuer.fetches == 3
    assert issuer.most_at_once == 1


@virtually
async def test_a_fetch_that_left_after_the_rejection_may_bring_it_back() -> None:
    issuer = FakeIssuer(token="old", delay=5.0)
    machine = build_machine(issuer, uniform=lowest)
    first = await machine.get()
    machine.invalidate(first.generation, "401")
    credential = await machine.get()
    assert (credential.generation, credential.secret.reveal()) == (2, "old")
    assert issuer.fetches == 2


@virtually
async def test_a_fetch_that_left_before_the_rejection_may_bring_another_token() -> None:
    issuer = FakeIssuer(token="old")
    machine = build_machine(issuer, uniform=lowest)
    await machine.get()
    issuer.token, issuer.delay = "new", 5.0
    await pass_time(181.0)
    machine.invalidate(1, "401")
    assert (await machine.get()).secret.reveal() == "new"
    assert issuer.fetches == 2


@virtually
async def test_callers_wait_through_the_second_fetch_and_share_its_failure() -> None:
    issuer = FakeIssuer(token="old")
    machine = build_machine(issuer, uniform=highest)
    await machine.get()
    issuer.delay = 5.0
    await pass_time(226.0)
    machine.invalidate(1, "401")
    issuer.error = DOWN
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(failure_of(machine.get())) for _ in range(10)]
    assert {caller.result().reason for caller in callers} == {"the issuer is down"}
    assert issuer.fetches == 3


@virtually
async def test_a_fetch_that_was_under_way_does_not_use_up_the_forced_refresh() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=lowest)
    await machine.get()
    issuer.delay = 1.0
    await pass_time(180.5)  # a refresh is in the air when all tokens are revoked
    machine.invalidate(1, "401")
    assert (await machine.get()).generation == 2
    machine.invalidate(2, "401")  # the issuer had made it before
    assert (await machine.get()).generation == 3
    assert issuer.fetches == 3
    machine.invalidate(3, "401")  # this one was fetched because of a rejection
    assert at_once(machine.get()).generation == 3


@virtually
async def test_a_token_that_another_process_fetched_does_not_use_up_the_forced_refresh() -> None:
    class Adopting:
        """Gives another process's token first, and then fetches."""

        async def bring(self, fetch: Fetch, known: Known) -> Credential:
            now, generation = asyncio.get_running_loop().time(), known.generation + 1
            credential = mint(await fetch(), generation=generation, obtained=now, uniform=lowest)
            return replace(credential, adopted=generation == 2)

    issuer = FakeIssuer()
    policy = RefreshPolicy(clock=asyncio.get_running_loop().time)
    machine = CachedTokenSource("corp", issuer, Adopting(), policy, TokenStats())
    for generation in (1, 2, 3):
        assert (await machine.get()).generation == generation
        machine.invalidate(generation, "401")
    assert at_once(machine.get()).generation == 3  # only now it is used up
