"""An issuer whose new token revokes the previous one: whose rejections replace the token of all callers."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.credentials import CachedTokenSource, RefreshPolicy
from proxy.credentials.refresh_policy import Uniform
from proxy.credentials.rejections import RECENT_SECONDS, Purpose
from proxy.credentials.sharing.host import TokenFolder
from proxy.telemetry import TokenStats
from tests.credentials.fakes import (
    CHAT,
    FakeIssuer,
    at_once,
    build_machine,
    failure_of,
    highest,
    lowest,
    pass_time,
    reject,
    serve,
    virtually,
)
from tests.credentials.upstreams import FORBIDDEN, LateUpstream, Upstream

REQUESTS: dict[str, Callable[[int], Purpose]] = {
    "content": lambda _: CHAT,
    "model": lambda _: FORBIDDEN,
    "endpoint": lambda _: Purpose("POST", "images/generations", "model"),
    "invented models": lambda number: CHAT._replace(model=f"m{number}"),
}


@pytest.mark.parametrize("requests", REQUESTS)
@pytest.mark.parametrize("careless", [1, 5])
@pytest.mark.parametrize("lag", [0.0, 0.5])
def test_requests_that_are_always_rejected_do_not_disturb_others(
    lag: float, careless: int, requests: str
) -> None:
    """Each fetch that they caused revoked the token that all others used."""

    @virtually
    async def run() -> None:
        issuer = FakeIssuer(delay=0.1, lifetime=3600.0)
        machine = build_machine(issuer, exclusive=True)
        late = LateUpstream(issuer, lag, revokes=True)
        upstream, always = Upstream(machine, late.rejects), Upstream(machine, lambda *_: True)
        outcomes, denied = Counter[str](), Counter[str]()

        async def be_careless(caller: str) -> None:
            for number in range(100):
                denied[await always.request(caller, REQUESTS[requests](number))] += 1
                await pass_time(0.05)

        async def be_careful(caller: str) -> None:
            while True:
                outcomes[await upstream.request(caller)] += 1
                await pass_time(0.1)

        await upstream.request()
        await pass_time(1.0)
        careful = [asyncio.ensure_future(be_careful(f"careful {number}")) for number in range(3)]  # noqa: TID251
        async with asyncio.TaskGroup() as group:
            for number in range(careless):
                group.create_task(be_careless(f"careless {number}"))
        for each in careful:
            each.cancel()
        assert set(outcomes) == {"ok"}
        assert set(denied) == {"denied"}
        # The first one, because the route of the others has not shown yet that it checks tokens.
        assert issuer.fetches <= (2 if requests == "endpoint" else 1)

    run()


@pytest.mark.parametrize("callers", [1, 3, 10])
@pytest.mark.parametrize("lag", [0.5, 0.9])
def test_callers_that_send_one_request_at_a_time_notice_no_late_token(lag: float, callers: int) -> None:
    """All of them waited for another to be accepted, and then fetched a token that was not known either."""

    @virtually
    async def run() -> None:
        issuer = FakeIssuer(delay=0.1)
        machine = build_machine(issuer, uniform=lowest, exclusive=True)
        late = LateUpstream(issuer, lag, revokes=True)
        upstream, outcomes = Upstream(machine, late.rejects), Counter[str]()

        async def work(caller: str) -> None:
            for _ in range(5000):
                outcomes[await upstream.request(caller)] += 1
                await pass_time(0.1)

        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(work(f"caller {number}"))
        assert set(outcomes) == {"ok"}
        assert issuer.fetches <= 1 + 520 // 180

    run()


@pytest.mark.parametrize(("idle", "longest"), [(0.1, RECENT_SECONDS), (5.0, 0.0)])
@virtually
async def test_a_revoked_token_is_replaced_once_nobody_can_show_that_it_works(
    idle: float, longest: float
) -> None:
    issuer = FakeIssuer(lifetime=3600.0)
    upstream = Upstream(build_machine(issuer, exclusive=True), lambda *_: False)
    assert await upstream.request() == "ok"
    await pass_time(10.0)
    assert await upstream.request() == "ok"
    await pass_time(idle)
    upstream.rejects = lambda token, _: token.secret.reveal() == "token-1"
    began = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        results = [group.create_task(upstream.request(f"caller {number}")) for number in range(10)]
    assert {each.result() for each in results} == {"ok"}
    assert asyncio.get_running_loop().time() - began <= longest + 0.01
    assert issuer.fetches == 2


def test_a_worker_adopts_the_token_that_revoked_its_own_without_a_noticeable_wait(tmp_path: Path) -> None:
    """All requests of the other workers waited for a second for proof of a token that had been replaced."""
    folder = TokenFolder(tmp_path, bytes(32))

    @virtually
    async def run() -> None:
        clock, issuer = asyncio.get_running_loop().time, FakeIssuer(delay=0.1)
        longest, late = 0.0, LateUpstream(issuer, 0.0, revokes=True)

        def worker(uniform: Uniform) -> Upstream:
            policy, stats = RefreshPolicy(clock=clock, exclusive=True, uniform=uniform), TokenStats()
            sharing = folder.sharing(b"one recipe", policy, stats)
            return Upstream(CachedTokenSource("corp", issuer, sharing, policy, stats), late.rejects)

        async def work(upstream: Upstream) -> None:
            nonlocal longest
            for _ in range(4000):
                began = clock()
                assert await upstream.request() == "ok"
                longest = max(longest, clock() - began)
                await pass_time(0.1)

        async with asyncio.TaskGroup() as group:
            for uniform in (lowest, highest, highest):
                group.create_task(work(worker(uniform)))
        assert longest < RECENT_SECONDS / 2
        assert issuer.fetches == 1 + 400 // 180

    run()


@virtually
async def test_a_token_is_suspect_only_when_its_replacement_is_fetched() -> None:
    issuer = FakeIssuer(lifetime=3600.0)
    machine = build_machine(issuer, exclusive=True)
    await serve(machine)
    await pass_time(10.0)
    await serve(machine)
    use = await reject(machine)
    assert machine.reading().state == "fresh"
    issuer.delay = 1.0
    waiting = asyncio.ensure_future(use.token())  # noqa: TID251
    await pass_time(RECENT_SECONDS + 0.1)
    assert machine.reading().state == "suspect"
    assert at_once(machine.get()).generation == 1
    newer = await waiting
    assert newer is not None
    assert newer.generation == 2


@virtually
async def test_a_request_that_is_rejected_at_random_is_sent_again_with_the_same_token() -> None:
    issuer = FakeIssuer(lifetime=3600.0)
    machine = build_machine(issuer, exclusive=True)
    first = await serve(machine)
    await pass_time(10.0)
    await serve(machine)
    use = await reject(machine)
    await pass_time(0.01)
    await serve(machine, "other")
    assert at_once(use.token()) is first
    use.accepted()
    assert issuer.fetches == 1
    assert machine.stats.early_deaths == 0


@virtually
async def test_a_token_that_only_some_nodes_know_is_neither_replaced_at_once_nor_reason_for_a_denial() -> (
    None
):
    """The route accepts the token for the first time after the rejection, and then rejects it again."""
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=lowest, exclusive=True)
    first = await serve(machine)
    await pass_time(180.5)
    use = await reject(machine)
    assert await use.token() is first
    assert use.rejected("401")  # the new token revoked it
    for _ in range(3):
        await pass_time(0.2)
        await serve(machine, "other")
        token = await use.token()
        assert token is not None
        assert token.generation == 2
        assert use.rejected("401")
    assert (await failure_of(use.token())).status == 503
    assert issuer.fetches == 2
