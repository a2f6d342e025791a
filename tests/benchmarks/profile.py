"""Where the CPU time of the proxy goes: microseconds for each stage of a request and of a streamed event.

`python -m tests.benchmarks.profile` samples the running proxy: whenever it has used another millisecond, the
innermost function that belongs to a stage is charged. Shares are exact to about a percent.

`--calls` counts the calls of Python functions instead, whose number is the same on every machine.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Final

import uvloop

from proxy.upstream.connections import PROBATION_SECONDS
from tests.benchmarks.__main__ import prepare_machine
from tests.benchmarks.process import BenchError
from tests.benchmarks.scenarios import Scenario, Work, build_scenarios
from tests.benchmarks.systems import Proxy
from tests.benchmarks.targets import Gateway
from tests.pace import PATIENCE

SAMPLE_SECONDS: Final = 0.001
SCENARIOS: Final = {"chat": "request", "burst": "stream", "paced-500x30": "event"}
ELSEWHERE: Final = "event loop and system calls"
STAGES: Final[Mapping[str, str]] = {
    "proxy.server": "HTTP server",
    "proxy.asgi": "ASGI connection, Quart",
    "proxy.app": "ASGI connection, Quart",
    "quart": "ASGI connection, Quart",
    "werkzeug": "ASGI connection, Quart",
    "proxy.access": "key and limits",
    "proxy.lifecycle": "scope of the exchange",
    "contextlib": "scope of the exchange",
    "proxy.blueprints": "read and check the request",
    "proxy.request_body": "read and check the request",
    "proxy.wire.request_json": "read and check the request",
    "proxy.wire.paths": "read and check the request",
    "proxy.upstream.routing": "choose the upstream",
    "proxy.upstream.attempts": "choose the upstream",
    "proxy.upstream.health": "choose the upstream",
    "proxy.wire.headers": "headers",
    "proxy.upstream.client": "token",
    "proxy.credentials": "token",
    "proxy.upstream.transport": "HTTP client",
    "proxy.upstream.http1": "HTTP client",
    "proxy.upstream.connections": "upstream connections",
    "proxy.upstream.dialing": "upstream connections",
    "proxy.wire.response_end": "upstream connections",
    "aiohappyeyeballs": "upstream connections",
    "proxy.upstream.relay": "relay the response",
    "proxy.upstream.clock": "relay the response",
    "proxy.wire.event_stream": "relay the response",
    "proxy.wire.usage": "relay the response",
    "proxy.telemetry": "log line",
    "structlog": "log line",
    "asyncio.timeouts": "timeouts",
}


def stage_of(frame: FrameType | None) -> str:
    """Return the stage of the innermost function that belongs to one."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        while module:
            if module in STAGES:
                return STAGES[module]
            module = module.rpartition(".")[0]
        frame = frame.f_back
    return ELSEWHERE


def serve(arguments: Sequence[str], results: Path, *, calls: bool) -> int:
    """Serve the proxy in this process; from SIGUSR1 to SIGUSR2, sample it or count its calls."""
    from proxy.cli import main

    samples = Counter[str]()

    def start(*_: object) -> None:
        samples.clear()
        if calls:
            sys.setprofile(count)
        else:
            signal.setitimer(signal.ITIMER_PROF, SAMPLE_SECONDS, SAMPLE_SECONDS)

    def stop(*_: object) -> None:
        sys.setprofile(None)
        signal.setitimer(signal.ITIMER_PROF, 0)
        results.with_suffix(".new").write_text(json.dumps(samples))
        results.with_suffix(".new").rename(results)

    def sample(_number: int, frame: FrameType | None) -> None:
        samples[stage_of(frame)] += 1

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            samples[stage_of(frame)] += 1

    signal.signal(signal.SIGPROF, sample)
    signal.signal(signal.SIGUSR1, start)
    signal.signal(signal.SIGUSR2, stop)
    return main(arguments)


class Sampled(Proxy):
    """The proxy, which samples where it spends its time."""

    calls = False
    """Whether it counts calls."""

    @property
    def results(self) -> Path:
        """Where the samples are written."""
        return self.home / "samples.json"

    def python(self) -> str:
        """Return the tests' own Python, which runs this module."""
        return sys.executable

    def command(self) -> list[str]:
        """Return the command line of this module, with that of `serve`."""
        python, _, _, *arguments = super().command()
        serve = "--serve-counting" if self.calls else "--serve"
        return [python, "-m", "tests.benchmarks.profile", serve, str(self.results), *arguments]

    async def warm_up(self, scenario: Scenario, core: int) -> None:
        """Let the proxy import and compile what the scenario uses."""
        await scenario.measure(self, core)

    async def profile(self, scenario: Scenario, rounds: int, core: int) -> Mapping[str, float]:
        """Return for each stage of a unit of work its CPU time in microseconds, or its number of calls."""
        await self.warm_up(scenario, core)
        self.results.unlink(missing_ok=True)
        os.kill(self.process.pid, signal.SIGUSR1)
        measured = [await scenario.measure(self, core) for _ in range(rounds)]
        os.kill(self.process.pid, signal.SIGUSR2)
        async with asyncio.timeout(PATIENCE):
            while not self.results.exists():  # noqa: ASYNC110 - another process sets no event
                await asyncio.sleep(0.01)
        samples: dict[str, int] = json.loads(self.results.read_text())
        if self.calls and isinstance(scenario, Work):
            of_a_sample = 1 / (round(scenario.units * self.share) * rounds)
        else:
            of_a_sample = mean(each.figures["cpu_us"] for each in measured) / sum(samples.values())
        return {stage: of_a_sample * number for stage, number in samples.items()}


class Counted(Sampled):
    """The proxy, which counts its calls; fewer requests suffice."""

    calls = True
    share = 0.3

    async def warm_up(self, scenario: Scenario, core: int) -> None:
        """Also let the upstream pass its probation: then how fast the machine is opens no connection."""
        await scenario.measure(self, core)
        await asyncio.sleep(PROBATION_SECONDS)
        await scenario.measure(self, core)


def table(name: str, stages: Mapping[str, float], figure: str) -> str:
    """Render the stages of one scenario, the most expensive first."""
    total = sum(stages.values())
    rows = [*sorted(stages.items(), key=lambda pair: -pair[1]), ("all", total)]
    lines = [f"  {stage:<30} {spent:>8.1f}  {spent / total:>6.1%}" for stage, spent in rows]
    return "\n".join([f"{name}, {figure} a {SCENARIOS[name]}", *lines])


async def profile(options: argparse.Namespace, cores: Sequence[int]) -> None:
    """Start the proxy and its upstream, and print a table for each scenario."""
    scenarios = build_scenarios()
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="profile-")))
        gateway = Gateway(home / "upstream", 0)
        stack.push_async_callback(gateway.stop)
        await gateway.start(cores[1])
        proxy = (Counted if options.calls else Sampled)(home / "proxy", gateway.port)
        stack.push_async_callback(proxy.stop)
        await proxy.start(cores[0])
        for name in options.scenarios:
            stages = await proxy.profile(scenarios[name], options.rounds, cores[0])
            print(table(name, stages, "calls" if options.calls else "CPU us"), end="\n\n")


def _any_cores() -> Sequence[int]:
    """Return the first and the last core, which may be the same one."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


def main(arguments: list[str]) -> int:
    """Print the tables."""
    if arguments[:1] in (["--serve"], ["--serve-counting"]):
        return serve(arguments[2:], Path(arguments[1]), calls=arguments[0] == "--serve-counting")
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.profile", description=__doc__)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS)
    parser.add_argument("--rounds", type=int, default=4, help="of each scenario, after one that warms up (4)")
    parser.add_argument("--calls", action="store_true", help="count calls, of a request or a whole stream")
    options = parser.parse_args(arguments)
    options.scenarios = options.scenarios or (["chat", "burst"] if options.calls else [*SCENARIOS])
    if options.calls and "paced-500x30" in options.scenarios:
        parser.error("--calls counts those of chat and burst")
    try:
        uvloop.run(profile(options, _any_cores() if options.calls else prepare_machine()))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
