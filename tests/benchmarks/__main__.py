"""Run the benchmark: `python -m tests.benchmarks` (Linux, two cores or more, nginx installed)."""

import argparse
import asyncio
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import uvloop

from tests.benchmarks.process import BenchError
from tests.benchmarks.report import Report, Row, describe_machine, footprint, render, summarize
from tests.benchmarks.scenarios import Round, Scenario, build_scenarios
from tests.benchmarks.targets import OPEN_FILES, Gateway, Target, build_targets
from tests.benchmarks.token_hit import token_hit_us

SYSTEMS: Final = ("nginx", "proxy")
SCENARIOS: Final = ("chat", "burst", "flood", "paced")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; the defaults take about two minutes."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=SYSTEMS, help="systems to run")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS, help="work to do")
    sizes = (
        ("--rounds", 5, "rounds that count; one more goes before"),
        ("--requests", 3000, "chat: requests a round"),
        ("--bursts", 400, "burst and flood: streams a round"),
        ("--streams", 500, "paced: streams at a time"),
        ("--events", 30, "paced: events a stream"),
    )
    for flag, default, text in sizes:
        parser.add_argument(flag, type=positive, default=default, help=f"{text} ({default})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--check", action="store_true", help="exit 1 where a ratio is over its bar")
    for scenario, bar in (("chat", 50.0), ("burst", 25.0), ("flood", 3.5), ("paced", 6.5)):
        text = f"bar for --check, times nginx ({bar})"
        parser.add_argument(f"--max-{scenario}", type=float, default=bar, help=text)
    options = parser.parse_args(arguments)
    if options.check and set(options.only) != set(SYSTEMS):
        parser.error("--check compares, so it needs every system")
    return options


def positive(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


async def bench(options: argparse.Namespace, cores: Sequence[int]) -> Report:
    """Start everything, measure, and end everything whatever happens."""
    current = asyncio.current_task()
    if current is not None:  # an outside SIGTERM must unwind too, or the servers stay behind
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, current.cancel)
    scenarios = build_scenarios(
        requests=options.requests, bursts=options.bursts, streams=options.streams, events=options.events
    )
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        gateway = Gateway(home / "upstream", 0)
        stack.push_async_callback(gateway.process.stop)
        await gateway.start(cores[1])
        known = build_targets(home, gateway.port)
        targets = [known[name] for name in known if name in options.only]
        for target in targets:
            stack.push_async_callback(target.process.stop)
            await target.start(cores[0])
        rows: list[Row] = []
        for name in options.scenarios:
            rows += await alternate(scenarios[name], targets, options.rounds)
        return Report(describe_machine(cores), rows, [footprint(target) for target in targets])


async def alternate(scenario: Scenario, targets: Sequence[Target], rounds: int) -> list[Row]:
    """Take the systems in turn, so that a slow moment of the machine meets them all; drop the first round."""
    measured: dict[str, list[Round]] = {target.name: [] for target in targets}
    for number in range(rounds + 1):
        for target in targets:
            one = await scenario.measure(target)
            measured[target.name].append(one)
            which = f"round {number}/{rounds}" if number else "warm-up"
            figures = f"{one.cpu_us:.1f} us, failed {one.failures.total()}"
            print(f"{scenario.name} {which}: {target.name} {figures}", file=sys.stderr)
    return summarize(scenario.name, scenario.unit, {name: own[1:] for name, own in measured.items()})


def verdicts(rows: Sequence[Row], bars: Mapping[str, float]) -> list[str]:
    """Why the run does not pass: any failure, for its figures mean nothing, and every ratio over its bar."""
    faults = [f"{row.scenario}: {row.system} failed {row.failed} times" for row in rows if row.failed]
    for row in rows:
        bar = bars.get(row.scenario, math.inf)
        if row.ratio is not None and row.ratio > bar:
            faults.append(f"{row.scenario}: {row.system} is at {row.ratio:.2f}x, over {bar:g}x")
    return faults


def prepare_machine() -> list[int]:
    """Stay on the second core, leave the first to what is measured; allow the sockets of both sides."""
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
        report = uvloop.run(bench(options, prepare_machine()))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped", file=sys.stderr)
        return 1
    print(render(report))
    print(f"\ntoken in hand: {uvloop.run(token_hit_us()):.2f} us of CPU a request")
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    bars = {scenario: getattr(options, f"max_{scenario}") for scenario in SCENARIOS}
    faults = verdicts(report.rows, bars if options.check else {})
    for fault in faults:
        print(f"NOT PASSED {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
