"""A run of the benchmark: its figures, the machine, and the versions."""

import datetime as dt
import json
import os
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Final, Self

from tests.benchmarks.process import REPOSITORY
from tests.benchmarks.rounds import Round

COMMAND_SECONDS: Final = 30.0
PACKAGES: Final = (
    *("quart", "hypercorn", "httptools", "uvloop", "httpx2", "openai", "msgspec"),
    *("uvicorn", "granian"),
)
REFERENCES: Final = {"x_nginx": "nginx", "x_floor": "floor"}
"""Ratios, and the systems that they refer to."""


@dataclass(frozen=True)
class Figure:
    """One figure over the rounds."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Row:
    """One system in one scenario."""

    scenario: str
    system: str
    figures: dict[str, Figure]
    failures: dict[str, int]

    @property
    def failed(self) -> int:
        """The number of faults of all kinds."""
        return sum(self.failures.values())


@dataclass(frozen=True)
class Report:
    """A whole run."""

    date: str
    rounds: int
    machine: dict[str, str]
    rows: list[Row]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a kept run."""
        kept = json.loads(path.read_text())
        rows = [
            Row(
                row["scenario"],
                row["system"],
                {name: Figure(**figure) for name, figure in row["figures"].items()},
                row["failures"],
            )
            for row in kept["rows"]
        ]
        return cls(kept["date"], kept["rounds"], kept["machine"], rows)

    def save(self, path: Path) -> None:
        """Write the run."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def of(self, scenario: str) -> list[Row]:
        """Return the rows of a scenario."""
        return [row for row in self.rows if row.scenario == scenario]

    def figure(self, scenario: str, system: str, name: str) -> Figure | None:
        """Return one figure, if it was measured."""
        for row in self.of(scenario):
            if row.system == system:
                return row.figures.get(name)
        return None


@dataclass(frozen=True)
class Point:
    """What a number of open streams costs.

    Args:
        workers: Processes that serve.
        streams: Streams that are open.
        cpu_percent: Of one core, for all workers together.
        memory_mb: Resident memory of all processes.
        lag_p99_ms: From the upstream's write of an event to its arrival.
        gap_p99_ms: Between two events of one stream.
        faults: Events that were lost, doubled, reordered or foreign, and streams that failed.
    """

    workers: int
    streams: int
    cpu_percent: float
    memory_mb: float
    lag_p99_ms: float
    gap_p99_ms: float
    faults: int


@dataclass(frozen=True)
class Curve:
    """A whole run."""

    date: str
    machine: dict[str, str]
    points: list[Point]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a kept run."""
        kept = json.loads(path.read_text())
        return cls(kept["date"], kept["machine"], [Point(**point) for point in kept["points"]])

    def save(self, path: Path) -> None:
        """Write the run."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def of(self, workers: int) -> list[Point]:
        """Return the points of one form, the smallest first."""
        return [point for point in self.points if point.workers == workers]


def summarize(scenario: str, measured: Mapping[str, Sequence[Round]]) -> list[Row]:
    """Return one row for each system.

    A ratio is the median of the rounds' own ratios: a slow moment of the machine affects both sides of one.
    """
    rows = []
    for system, rounds in measured.items():
        figures = [dict(one.figures) for one in rounds]
        for ratio, reference in REFERENCES.items():
            others = measured.get(reference, [])
            if all("cpu_us" in one.figures for one in (*rounds, *others)):
                for own, other in zip(figures, others, strict=bool(others)):
                    own[ratio] = own["cpu_us"] / other.figures["cpu_us"]
        failures = sum((one.failures for one in rounds), Counter[str]())
        rows.append(
            Row(
                scenario,
                system,
                {name: _figure([own[name] for own in figures if name in own]) for name in figures[0]},
                dict(failures),
            )
        )
    return rows


def _figure(values: Sequence[float]) -> Figure:
    return Figure(*(float(f"{value:.4g}") for value in (median(values), min(values), max(values))))


def begin_report(rounds: int, cores: Sequence[int], versions: Sequence[str]) -> Report:
    """Return a report without rows, which names the machine and the versions."""
    return Report(
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        rounds=rounds,
        machine=describe_machine(cores, versions),
        rows=[],
    )


def describe_machine(cores: Sequence[int], versions: Sequence[str]) -> dict[str, str]:
    """Return the facts that others need for a comparison."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = cpu[0].partition(":")[2].strip() if cpu else platform.machine()
    return {
        "machine": f"{model}, {os.cpu_count()} cores (one for the server, one for the load; load average "
        f"{os.getloadavg()[0]:.1f} at the start)",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join([*(f"{name} {installed(name)}" for name in PACKAGES), *versions]),
        "commit": commit(),
    }


def installed(package: str) -> str:
    """Return a package's version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def commit() -> str:
    """Return the measured commit, and whether the working tree differs from it."""
    git = shutil.which("git")
    name = output(git, "rev-parse", "--short", "HEAD") if git else ""
    if git is None or not name:
        return "none"
    return f"{name} with changes" if output(git, "status", "--porcelain", "proxy") else name


def output(*command: str) -> str:
    """Return the output and errors of a command; empty if it fails."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            timeout=COMMAND_SECONDS,
            check=True,
            text=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
