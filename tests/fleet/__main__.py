"""Run the fleet on two hosts: `python -m tests.fleet` (Linux, root, iproute2, redis-server; two minutes)."""

import argparse
import asyncio
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from proxy.gateway import GatewayOptions
from tests.fleet.fleet import Counts, Fleet, run_fleet
from tests.fleet.hosts import namespaces
from tests.loopback import until

LIFE_SECONDS: Final = 5.0
HOSTS: Final = 2
PROCESSES: Final = 4


class Report:
    """What each part showed, and whether it was as it must be."""

    def __init__(self) -> None:
        self.passed = True

    def tell(self, part: str, fetches: int, allowed: range, counts: Counts, without: str = "") -> None:
        """One line; `allowed` is how many fetches there may be, `without` the proxy that was killed."""
        found = [counts[url] for url in counts if url != without]
        good = sum(one["good"] for one in found)
        errors = sum(one["bad"] + one["gone"] for one in found)
        holds = fetches in allowed and errors == 0 and good > 0
        self.passed &= holds
        bounds = f"({allowed.start} to {allowed.stop - 1})"
        figures = f"fetches {fetches:>3} {bounds:<9} good {good:>6}   errors {errors}"
        print(f"{part:<24} {figures}   {'ok' if holds else 'NOT PASSED'}")


def once_a_life(seconds: float) -> range:
    """How many fetches one process makes in a time: between its latest and its earliest refresh."""
    least = math.floor(seconds / (0.75 * LIFE_SECONDS))
    return range(least, math.ceil(seconds / (0.6 * LIFE_SECONDS)) + 2)


async def steady(fleet: Fleet, seconds: float, report: Report, part: str = "steady load") -> None:
    """Load for a while: one fetch a life for all of them."""
    async with fleet.load(seconds) as counts:
        before = fleet.gateway.stats.token_fetches
    report.tell(part, fleet.gateway.stats.token_fetches - before, once_a_life(seconds), counts)


async def revoked(fleet: Fleet, report: Report) -> None:
    """The issuer revokes the fleet's token: exactly one more fetch."""
    stats = fleet.gateway.stats
    async with fleet.load(LIFE_SECONDS / 2) as counts:
        seen = stats.token_fetches
        # A new one, which nobody renews until the load is over.
        await until(lambda: stats.token_fetches > seen and not stats.token_fetches_in_flight)
        before = stats.token_fetches
        fleet.gateway.tokens.revoke_all()
    report.tell("token revoked", stats.token_fetches - before, range(1, 2), counts)


async def killed(fleet: Fleet, report: Report) -> None:
    """The process that fetches is killed in the middle of it."""
    stats, seconds = fleet.gateway.stats, 2 * LIFE_SECONDS
    async with fleet.load(seconds) as counts:
        before = stats.token_fetches
        await until(lambda: stats.token_fetches_in_flight == 1, seconds=LIFE_SECONDS)
        victim = fleet.fetching_member()
        victim.process.kill()
    fleet.members.remove(victim)
    allowed = once_a_life(seconds)  # and the one that was cut off
    report.tell(
        "killed in mid-fetch", stats.token_fetches - before, range(2, allowed.stop + 1), counts, victim.url
    )


async def without_redis(fleet: Fleet, seconds: float, report: Report) -> None:
    """Redis is killed in the middle: from then on each process fetches for itself, once a life."""
    stats = fleet.gateway.stats
    async with fleet.load(seconds) as counts:
        before = stats.token_fetches
        await asyncio.sleep(seconds / 3)
        await fleet.redis.stop()
    together, alone = once_a_life(seconds / 3), once_a_life(2 * seconds / 3)
    most = together.stop + len(fleet.members) * (alone.stop - 1)
    report.tell("Redis killed", stats.token_fetches - before, range(len(fleet.members), most), counts)


async def with_redis_again(fleet: Fleet, seconds: float, report: Report) -> None:
    """It is back: once every process has noticed, one fetch a life is enough again."""
    await fleet.redis.start()
    async with fleet.load(2 * LIFE_SECONDS):
        pass
    await steady(fleet, seconds, report, "Redis back")


async def run(seconds: float) -> bool:
    """Every part in turn."""
    report = Report()
    options = GatewayOptions(token_ttl=LIFE_SECONDS, word_delay=0.0, token_delay=0.2)
    with namespaces(HOSTS) as hosts, TemporaryDirectory(prefix="fleet-") as home:
        async with run_fleet(hosts, PROCESSES, Path(home), options) as fleet:
            print(f"{HOSTS} hosts, {PROCESSES} processes each, tokens live {LIFE_SECONDS:g} s")
            await steady(fleet, seconds, report)
            await revoked(fleet, report)
            await killed(fleet, report)
            await without_redis(fleet, seconds, report)
            await with_redis_again(fleet, seconds, report)
    return report.passed


def main(arguments: Sequence[str]) -> int:
    """Exit 0 where all was as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each load (30)")
    return 0 if asyncio.run(run(parser.parse_args(arguments).seconds)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
