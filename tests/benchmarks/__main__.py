"""Run the benchmark: `python -m tests.benchmarks` (Linux, two cores or more, nginx installed)."""

import argparse
import asyncio
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import uvloop

from tests.benchmarks.bars import BARS, verdicts
from tests.benchmarks.pages import keep
from tests.benchmarks.peers import PEERS
from tests.benchmarks.process import BenchError
from tests.benchmarks.report import Report, Row, begin_report, summarize
from tests.benchmarks.rounds import Round
from tests.benchmarks.scenarios import Scenario, build_scenarios
from tests.benchmarks.systems import SYSTEMS
from tests.benchmarks.tables import render_report
from tests.benchmarks.targets import OPEN_FILES, Gateway, Target
from tests.benchmarks.token_hit import token_hit_us

TOKEN: Final = "token"
SCENARIOS: Final = (*build_scenarios(), TOKEN)
QUICK_ROWS: Final = ("nginx", "floor", "proxy")
QUICK_SCENARIOS: Final = ("chat", "burst", "paced-500x30", "open", TOKEN)
PEER_ROWS: Final = ("nginx", "floor", "proxy", *PEERS)
PEER_SCENARIOS: Final = ("chat", "burst", "paced-500x30", "start")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    known = {**SYSTEMS, **PEERS}
    parser.add_argument("--rows", nargs="+", choices=known, metavar="ROW", help=", ".join(known))
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--rounds", type=positive, help="rounds that count; one more goes before (5)")
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer rows, scenarios, rounds")
    parser.add_argument(
        "--peers", action="store_true", help="compare with other proxies; see `make bench-peers`"
    )
    parser.add_argument("--check", action="store_true", help="as --quick; exit 1 if a figure is over its bar")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the run here")
    parser.add_argument(
        "--keep", action="store_true", help="keep the run in docs/performance/, with its tables"
    )
    parser.add_argument(
        "--busy", action="store_true", help="keep the run even if other programs use the machine's cores"
    )
    options = parser.parse_args(arguments)
    rows, only, rounds = tuple(SYSTEMS), SCENARIOS, 5
    if options.peers:
        rows, only = PEER_ROWS, PEER_SCENARIOS
    elif options.check:
        rows, only, rounds = QUICK_ROWS, tuple(bar.scenario for bar in BARS), 3
    elif options.quick:
        rows, only, rounds = QUICK_ROWS, QUICK_SCENARIOS, 2
    options.rows = [name for name in known if name in (options.rows or rows)]
    options.only = [name for name in SCENARIOS if name in (options.only or only)]
    options.rounds = options.rounds or rounds
    return options


def positive(text: str) -> int:
    """Parse a positive integer."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def check_load(options: argparse.Namespace, load: float, cores: int) -> None:
    """Refuse to keep a run if other programs compete with the measured ones.

    Args:
        options: The command line, with `keep` and `busy`.
        load: The average number of runnable processes of the last minute.
        cores: How many cores the machine has.

    Raises:
        BenchError: The machine is busy, and `--busy` was not given.
    """
    if options.keep and not options.busy and load > cores:
        raise BenchError(
            f"the machine is busy (load average {load:.1f} on {cores} cores), so this run would not be "
            "comparable; wait, or keep it anyway with --busy"
        )


async def bench(options: argparse.Namespace, cores: Sequence[int]) -> Report:
    """Start everything, measure, and always end everything."""
    current = asyncio.current_task()
    if current is not None:  # an outside SIGTERM must unwind too, or the servers stay behind
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, current.cancel)
    scenarios = build_scenarios()
    kinds = {**SYSTEMS, **PEERS}
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        gateway = Gateway(home / "upstream", 0)
        stack.push_async_callback(gateway.stop)
        await gateway.start(cores[1])
        targets = [kinds[name](home / name, gateway.port) for name in options.rows]
        for target in targets:
            stack.push_async_callback(target.stop)
            await target.start(cores[0])
        versions = [version for target in targets if (version := target.version())]
        report = begin_report(options.rounds, cores, versions)
        for name in options.only:
            if name == TOKEN:
                rounds = [Round({"cpu_us": figure}) for figure in await token_hit_us(options.rounds)]
                report.rows.extend(summarize(TOKEN, {"proxy": rounds}))
            else:
                report.rows.extend(await alternate(scenarios[name], targets, options.rounds, cores[0]))
        return report


async def alternate(scenario: Scenario, targets: Sequence[Target], rounds: int, core: int) -> list[Row]:
    """Measure the systems in turn, so that a slow machine affects all of them; drop the first round."""
    able = [one for one in targets if one.scenarios is None or scenario.name in one.scenarios]
    measured: dict[str, list[Round]] = {target.name: [] for target in able}
    for number in range(0 if scenario.warms_up else 1, rounds + 1):
        for target in [*able]:
            try:
                one = await scenario.measure(target, core)
            except BenchError as error:  # The others can still be compared.
                print(f"{scenario.name}: {error}", file=sys.stderr)
                able.remove(target)
                measured[target.name] = [Round({}, Counter({"not measured": 1}))]
                continue
            which = f"round {number}/{rounds}" if number else "warm-up"
            figures = ", ".join(f"{name} {value:.4g}" for name, value in one.figures.items())
            faults = f"; FAILED {dict(one.failures)}" if one.failures else ""
            print(f"{scenario.name} {which}: {target.name}: {figures}{faults}", file=sys.stderr)
            if number:
                measured[target.name].append(one)
    return summarize(scenario.name, measured)


def prepare_machine() -> list[int]:
    """Move to the second core, because the first one serves, and raise the limit of open files."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("two cores are needed: one for what is measured, one for the load")
    os.sched_setaffinity(0, {cores[1]})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return cores


def main(arguments: Sequence[str]) -> int:
    """Exit 0 with a valid table, 1 with a failure or a ratio over its bar."""
    options = parse_arguments(arguments)
    try:
        check_load(options, os.getloadavg()[0], os.cpu_count() or 1)
        report = uvloop.run(bench(options, prepare_machine()))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped", file=sys.stderr)
        return 1
    print(render_report(report))
    if options.json is not None:
        report.save(options.json)
    if options.keep:
        keep(report, "peers" if options.peers else "bench")
    faults = verdicts(report) if options.check else []
    for fault in faults:
        print(f"NOT PASSED {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
