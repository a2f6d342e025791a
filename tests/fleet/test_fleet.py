"""Real processes with one Redis: one fetch a token life for all of them, whatever happens to one."""

import math
from pathlib import Path

from proxy.gateway import GatewayOptions
from tests.fleet.fleet import Counts, Fleet, run_fleet
from tests.fleet.hosts import THIS_MACHINE
from tests.loopback import until

LIFE, SECONDS, FETCH = 2.2, 3.6, 0.2
SOFT_MIN, SOFT_MAX = 0.60 * LIFE, 0.75 * LIFE


def errors(counts: Counts) -> int:
    """Whatever was not as asked for."""
    return sum(found["bad"] + found["gone"] for found in counts.values())


async def test_invariants_22_23_26_a_fleet_fetches_once_a_life_and_nobody_notices(tmp_path: Path) -> None:
    options = GatewayOptions(token_ttl=LIFE, word_delay=0.0, token_delay=FETCH)
    async with run_fleet([THIS_MACHINE], 3, tmp_path, options) as fleet:
        await load_steadily(fleet)
        await revoke_its_token(fleet)
        await kill_who_fetches(fleet)


async def load_steadily(fleet: Fleet) -> None:
    """Invariant 22."""
    stats = fleet.gateway.stats
    async with fleet.load(SECONDS) as counts:
        before = stats.token_fetches
    fetches = stats.token_fetches - before
    assert math.floor(SECONDS / (SOFT_MAX + FETCH)) <= fetches <= math.ceil(SECONDS / SOFT_MIN) + 1
    assert stats.token_fetches_at_once_max == 1
    assert errors(counts) == 0
    assert all(found["good"] > 0 for found in counts.values())


async def revoke_its_token(fleet: Fleet) -> None:
    """Invariant 26."""
    stats = fleet.gateway.stats
    async with fleet.load(0.8) as counts:
        await until(lambda: not stats.token_fetches_in_flight)  # one that comes later would not be revoked
        before = stats.token_fetches
        fleet.gateway.tokens.revoke_all()
    assert 1 <= stats.token_fetches - before <= 2  # one, and perhaps the next in its own time
    assert errors(counts) == 0


async def kill_who_fetches(fleet: Fleet) -> None:
    """Invariant 23."""
    stats = fleet.gateway.stats
    async with fleet.load(LIFE + 1.0) as counts:
        await until(lambda: stats.token_fetches_in_flight == 1)
        killed = fleet.fetching_member()
        killed.process.kill()
        before = stats.token_fetches
    assert stats.token_fetches > before  # somebody else took over
    del counts[killed.url]
    assert errors(counts) == 0
