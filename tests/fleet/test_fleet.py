"""Real processes with one Redis: one fetch a token life for all of them."""

import math
from pathlib import Path

from proxy.gateway import GatewayOptions
from tests.fleet.fleet import Counts, run_fleet
from tests.fleet.hosts import THIS_MACHINE
from tests.loopback import until

LIFE, SECONDS = 2.5, 5.0
SOFT_MIN, SOFT_MAX = 0.60 * LIFE, 0.75 * LIFE


def errors(counts: Counts) -> int:
    """Whatever was not as asked for."""
    return sum(found["bad"] + found["gone"] for found in counts.values())


async def test_invariant_22_a_fleet_fetches_once_a_life_and_nobody_notices(tmp_path: Path) -> None:
    options = GatewayOptions(token_ttl=LIFE, word_delay=0.0, token_delay=0.05)
    async with run_fleet([THIS_MACHINE], 3, tmp_path, options) as fleet:
        stats = fleet.gateway.stats
        before = stats.token_fetches
        async with fleet.load(SECONDS) as counts:
            pass
        fetches = stats.token_fetches - before
        assert math.floor(SECONDS / SOFT_MAX) - 1 <= fetches <= math.ceil(SECONDS / SOFT_MIN) + 1
        assert stats.token_fetches_at_once_max == 1
        assert errors(counts) == 0
        assert all(found["good"] > 0 for found in counts.values())

        fleet.gateway.tokens.revoke_all()  # invariant 26, with real processes
        before = stats.token_fetches
        async with fleet.load(0.5) as counts:
            pass
        assert stats.token_fetches - before <= 2  # one, and perhaps the next of its own accord
        assert errors(counts) == 0


async def test_invariant_23_a_process_that_is_killed_in_mid_fetch_costs_no_other_caller_an_error(
    tmp_path: Path,
) -> None:
    options = GatewayOptions(token_ttl=6.0, word_delay=0.0, token_delay=0.4)
    async with run_fleet([THIS_MACHINE], 2, tmp_path, options) as fleet:
        stats = fleet.gateway.stats
        async with fleet.load(6.0) as counts:
            await until(lambda: stats.token_fetches_in_flight == 1)
            killed = fleet.fetching_member()
            killed.process.kill()
        del counts[killed.url]
        assert errors(counts) == 0
        await until(lambda: stats.token_fetches >= 3)
