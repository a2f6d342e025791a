"""Two routes that check tokens, one of which learns of them late: what the other accepts is no evidence."""

import asyncio
import itertools
import math
from collections import Counter

import pytest

from proxy.credentials import CachedTokenSource
from proxy.credentials.rejections import Purpose
from tests.credentials.fakes import CHAT, FakeIssuer, build_machine, lowest, pass_time, virtually
from tests.credentials.upstreams import LateUpstream, Upstream

LATE = pytest.mark.parametrize(
    "late_route",
    [
        pytest.param(CHAT._replace(upstream="late"), id="the same route of another upstream"),
        pytest.param(Purpose("POST", "embeddings", "model"), id="another route"),
    ],
)


class TwoRoutes:
    """Two routes of which every token is required, and the callers of both.

    Args:
        issuer: Issues the tokens.
        machine: Has the tokens.
        late_route: The purpose of requests to the route that learns of tokens late.
        lag: Seconds until it accepts a token.
        knows: The number of tokens that it knows from the beginning.
        revoked: When both stop accepting the tokens until then.
    """

    def __init__(
        self,
        issuer: FakeIssuer,
        machine: CachedTokenSource,
        late_route: Purpose,
        lag: float,
        *,
        knows: int = 1,
        revoked: float = math.inf,
    ) -> None:
        self._quick = Upstream(machine, LateUpstream(issuer, 0.0, revoked=revoked).rejects)
        late = LateUpstream(issuer, lag, knows=knows, revoked=revoked)
        self._late = Upstream(machine, late.rejects)
        self._late_route = late_route
        self._numbers = itertools.count()

    async def serve(self, seconds: int, models: int) -> tuple[Counter[str], Counter[str]]:
        """Send ten requests a second to each; return the results of the quick and of the late route."""
        async with asyncio.TaskGroup() as group:
            quick, late = [], []
            for number in itertools.islice(self._numbers, 10 * seconds):
                caller, model = f"caller {number % 10}", f"model {number % models}"
                quick.append(group.create_task(self._quick.request(caller, CHAT._replace(model=model))))
                request = self._late.request(caller, self._late_route._replace(model=model))
                late.append(group.create_task(request))
                await pass_time(0.1)
        return Counter(each.result() for each in quick), Counter(each.result() for each in late)


@LATE
@pytest.mark.parametrize("models", [1, 30])
@virtually
async def test_a_short_lag_after_a_revocation_is_not_noticed(models: int, late_route: Purpose) -> None:
    issuer = FakeIssuer(delay=0.1, lifetime=3600.0)
    machine = build_machine(issuer, uniform=lowest)
    revoked_at = asyncio.get_running_loop().time() + 10.5
    routes = TwoRoutes(issuer, machine, late_route, 0.5, revoked=revoked_at)
    assert await routes.serve(60, models) == ({"ok": 600}, {"ok": 600})
    assert issuer.fetches == 2


@LATE
@pytest.mark.parametrize("models", [1, 30])
@pytest.mark.parametrize("cold", [True, False])
@pytest.mark.parametrize("lag", [2.0, 10.0])
def test_the_late_route_recovers_after_a_revocation_and_after_a_cold_start(
    lag: float, late_route: Purpose, models: int, *, cold: bool
) -> None:
    """As long as the quick route accepted each token, fetches replaced them before the late one knew them."""

    @virtually
    async def run() -> None:
        issuer = FakeIssuer(delay=0.1, lifetime=3600.0)
        machine = build_machine(issuer, uniform=lowest)
        revoked_at = math.inf if cold else asyncio.get_running_loop().time() + 10.5
        knows = 0 if cold else 1
        routes = TwoRoutes(issuer, machine, late_route, lag, knows=knows, revoked=revoked_at)
        if not cold:
            assert await routes.serve(10, models) == ({"ok": 100}, {"ok": 100})
        quick, _ = await routes.serve(10 + 2 * int(lag), models)
        assert set(quick) == {"ok"}
        assert await routes.serve(60, models) == ({"ok": 600}, {"ok": 600})
        assert issuer.fetches <= 10

    run()
