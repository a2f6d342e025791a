"""Attack the fleet and print a table: `python -m tests.fleet` (Linux, redis-server; 15 minutes)."""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.fleet.attacks import ATTACKS, Attack, Outcome, perform
from tests.fleet.fleet import Fleet, run_fleet
from tests.fleet.remote import Child, running

MEMBERS: Final = 8
HEADINGS: Final = (
    f"{'attack':<26}{'runs':>5}{'errors':>16}{'gap':>8}{'stalled':>9}{'fetches':>9}{'expired':>9}"
)


def row(outcomes: Sequence[Outcome]) -> str:
    """Return the runs of one attack as a line, and a line for each kind of problem."""
    attack = outcomes[0].attack
    errors = sum((outcome.errors for outcome in outcomes), Counter[str]())
    asked = sum(outcome.requests for outcome in outcomes)
    fetches = [outcome.fetches for outcome in outcomes]
    failed = sum(bool(outcome.problems) for outcome in outcomes)
    spread = f"{min(fetches)}" if min(fetches) == max(fetches) else f"{min(fetches)}-{max(fetches)}"
    verdict = "ok" if not failed else f"FAILED {failed} of {len(outcomes)}"
    return (
        f"{attack.name:<26}{len(outcomes):>5}{f'{errors.total()}/{asked}':>16}"
        f"{max(outcome.gap.net for outcome in outcomes):>7.2f}s"
        f"{max(outcome.stalled for outcome in outcomes):>8.2f}s"
        f"{spread:>9}{sum(outcome.expired for outcome in outcomes):>9}   {verdict}"
    )


def details(outcome: Outcome) -> str:
    """Return a run as one line of JSON, with its problems."""
    found = {name: getattr(outcome, name) for name in outcome.__slots__}
    found |= {"attack": outcome.attack.name, "gap": outcome.gap._asdict(), "ended": time.time()}
    return json.dumps(found)


@contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    """Yield the folder for settings, logs and records."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with TemporaryDirectory(prefix="fleet-") as home:
        yield Path(home)


@asynccontextmanager
async def busy(processes: int, home: Path) -> AsyncIterator[None]:
    """Keep the machine busy with processes that compute."""
    async with AsyncExitStack() as stack:
        for number in range(processes):
            command = (sys.executable, "-c", "while True: pass")
            await stack.enter_async_context(running(Child(f"busy{number}", command, home / "busy.log")))
        yield


async def attack_fleet(
    attacks: Sequence[Attack], options: argparse.Namespace, home: Path, *, sentinel: bool
) -> bool:
    """Run some attacks on a new fleet, and print their rows."""
    passed = True
    async with run_fleet(options.members, home, sentinel=sentinel) as fleet:
        for attack in attacks:
            outcomes = [await perform_once(fleet, attack, options, number) for number in range(options.runs)]
            print(row(outcomes), flush=True)
            for problem, count in Counter(
                problem for outcome in outcomes for problem in outcome.problems
            ).items():
                print(f"    {count} x {problem}" if count > 1 else f"    {problem}", flush=True)
            passed &= not any(outcome.problems for outcome in outcomes)
    return passed


async def perform_once(fleet: Fleet, attack: Attack, options: argparse.Namespace, number: int) -> Outcome:
    """Run an attack once, and write its details to the file."""
    outcome = await perform(fleet, attack, short=options.short, seconds=options.seconds, number=number)
    with (fleet.home / "outcomes.jsonl").open("a") as out:
        out.write(details(outcome) + "\n")
    return outcome


async def run(options: argparse.Namespace) -> bool:
    """Run every chosen attack; return whether all passed."""
    chosen = [attack for attack in ATTACKS if not options.only or attack.name in options.only]
    passed = True
    print(f"{options.members} members, {options.load_processes} busy processes\n{HEADINGS}", flush=True)
    with folder(options.keep) as home:
        async with busy(options.load_processes, home):
            for sentinel in (False, True):
                attacks = [attack for attack in chosen if attack.needs_sentinel is sentinel]
                place = home / ("sentinel" if sentinel else "relays")
                place.mkdir(exist_ok=True)
                if attacks:
                    passed &= await attack_fleet(attacks, options, place, sentinel=sentinel)
    return passed


def main(arguments: Sequence[str]) -> int:
    """Exit 0 if every attack passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    names = [attack.name for attack in ATTACKS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--runs", type=int, default=1, help="runs of each attack (1)")
    parser.add_argument("--seconds", type=float, help="length of each attack, if not its own")
    parser.add_argument("--members", type=int, default=MEMBERS, help=f"proxies ({MEMBERS})")
    parser.add_argument("--short", action="store_true", help="the short forms that the test suite runs")
    parser.add_argument("--load-processes", type=int, default=0, help="keep the machine busy with so many")
    parser.add_argument("--keep", type=Path, help="leave logs and records in this folder")
    return 0 if asyncio.run(run(parser.parse_args(arguments))) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
