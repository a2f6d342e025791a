"""A route, or another upstream, that checks no token: what it accepts harms no other request."""

import asyncio
import itertools
import math

import pytest

from proxy.credentials import Token
from proxy.credentials.observed_tokens import PROPAGATION_SECONDS
from proxy.credentials.rejections import DOUBTED_SECONDS, Purpose
from tests.credentials.fakes import CHAT, FakeIssuer, build_machine, lowest, virtually
from tests.credentials.upstreams import LateUpstream, Upstream, revoked

OPEN = pytest.mark.parametrize(
    "open_route",
    [
        pytest.param(Purpose("GET", "models"), id="models"),
        pytest.param(Purpose("POST", "moderations", "model"), id="moderations"),
        pytest.param(CHAT._replace(upstream="other"), id="the same route of another upstream"),
    ],
)


@OPEN
@pytest.mark.parametrize(("callers", "models"), [(1, 1), (10, 7)])
@pytest.mark.parametrize("lag", [0.5, 10.0])
def test_nobody_notices_that_the_upstream_learns_of_new_tokens_late(
    lag: float, callers: int, models: int, open_route: Purpose
) -> None:
    @virtually
    async def run() -> None:
        issuer = FakeIssuer(delay=0.1)
        machine = build_machine(issuer, uniform=lowest)
        upstream = LateUpstream(issuer, lag)
        assert await upstream.serve(machine, 500, callers, models, open_route) == {"ok": 5000}
        refreshes = 500 // 180
        more = refreshes if lag > PROPAGATION_SECONDS else 0  # the first one might be dead
        # At the first refresh, the open route still counts as evidence that the upstream knows the token.
        assert issuer.fetches <= 1 + refreshes + more + 1

    run()


@OPEN
@pytest.mark.parametrize("callers", [1, 10])
@virtually
async def test_a_new_token_that_is_dead_is_replaced_unnoticed(callers: int, open_route: Purpose) -> None:
    issuer = FakeIssuer(delay=0.1)
    machine = build_machine(issuer, uniform=lowest)
    upstream = LateUpstream(issuer, 0.0, dead=(2,))
    assert await upstream.serve(machine, 300, callers, open_route=open_route) == {"ok": 3000}
    assert issuer.fetches == 3


@OPEN
@pytest.mark.parametrize("callers", [1, 10])
@pytest.mark.parametrize("lag", [3.0, 10.0])
@pytest.mark.parametrize("cold", [True, False])
def test_the_service_recovers_however_late_the_upstream_learns_of_the_only_token(
    lag: float,
    callers: int,
    open_route: Purpose,
    *,
    cold: bool,
) -> None:
    @virtually
    async def run() -> None:
        issuer = FakeIssuer(delay=0.1, lifetime=3600.0)
        machine = build_machine(issuer)
        revoked_at = math.inf if cold else asyncio.get_running_loop().time() + 10.5
        upstream = LateUpstream(issuer, lag, knows=0 if cold else 1, revoked=revoked_at)
        if not cold:
            assert await upstream.serve(machine, 10, callers, open_route=open_route) == {"ok": 100}
        await upstream.serve(machine, 5 + 2 * int(lag), callers, open_route=open_route)
        assert await upstream.serve(machine, 60, callers, open_route=open_route) == {"ok": 600}
        assert issuer.fetches <= 5

    run()


@OPEN
@virtually
async def test_a_token_that_revokes_the_previous_one_and_is_known_late_causes_few_fetches(
    open_route: Purpose,
) -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=lowest, exclusive=True)
    upstream = LateUpstream(issuer, 0.5, revokes=True)
    results = await upstream.serve(machine, 1000, 10, open_route=open_route)
    assert results["ok"] > 9900
    assert issuer.fetches < 5 * 1000 / 180


@OPEN
@pytest.mark.parametrize("fault", [1.0, 5.0, 30.0, 70.0])
@virtually
async def test_an_issuer_that_returns_dead_tokens_for_a_while_is_asked_again_soon(
    fault: float, open_route: Purpose
) -> None:
    clock = asyncio.get_running_loop().time
    issuer = FakeIssuer(lifetime=3600.0)
    machine = build_machine(issuer)
    upstream, unchecked = Upstream(machine, revoked()), Upstream(machine, revoked())
    assert await upstream.request() == "ok"
    dead, began = {"token-1"}, clock()
    upstream.rejects = lambda token, _: token.secret.reveal() in dead
    for number in itertools.count():
        await unchecked.request("poller", open_route)
        if await upstream.request(f"caller {number % 3}") == "ok":
            break
        if clock() < began + fault:
            dead.add(f"token-{issuer.fetches}")
        await asyncio.sleep(0.25)
    assert clock() - began <= 3 * fault + DOUBTED_SECONDS
    assert issuer.fetches <= 30


@OPEN
@pytest.mark.parametrize("life", [3.0, 8.0])
@virtually
async def test_tokens_that_die_early_are_refreshed_by_their_observed_life(
    life: float, open_route: Purpose
) -> None:
    clock, born = asyncio.get_running_loop().time, dict[str, float]()

    def is_dead(token: Token, purpose: Purpose) -> bool:
        age = clock() - born.setdefault(token.secret.reveal(), clock())
        return purpose.route == CHAT.route and age >= life

    machine = build_machine(FakeIssuer(delay=0.2))
    upstream, outcomes = Upstream(machine, is_dead), list[str]()
    async with asyncio.TaskGroup() as group:
        for _ in range(int(160 * life)):
            group.create_task(upstream.request("poller", open_route))
            outcomes.append(await upstream.request())
            await asyncio.sleep(0.25)
    assert set(outcomes) == {"ok"}
    assert 0 < machine.reading().learned_life_seconds < 3 * life


@OPEN
@virtually
async def test_a_model_that_is_forbidden_is_denied_to_others_while_its_own_route_works(
    open_route: Purpose,
) -> None:
    issuer = FakeIssuer(lifetime=3600.0)
    machine = build_machine(issuer)
    upstream = Upstream(machine, lambda _, purpose: purpose.model == "forbidden")
    for number in range(100):
        assert await upstream.request("poller", open_route) == "ok"
        assert await upstream.request() == "ok"
        assert await upstream.request(f"{number}", CHAT._replace(model="forbidden")) == "denied"
        await asyncio.sleep(0.1)
    assert issuer.fetches == 2
