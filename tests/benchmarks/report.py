"""What the benchmark prints: the machine, the versions, the table."""

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
from typing import Final

from tests.benchmarks.process import REPOSITORY, BenchError
from tests.benchmarks.scenarios import Round
from tests.benchmarks.targets import Target, find_nginx

BASELINE: Final = "nginx"
COMMAND_SECONDS: Final = 5.0
PACKAGES: Final = ("quart", "hypercorn", "openai", "aiohttp")


@dataclass(frozen=True)
class Row:
    """One line of the table: medians over the rounds, and everything that went wrong in any of them."""

    scenario: str
    unit: str
    system: str
    cpu_us: float
    ratio: float | None
    p50_ms: float
    p99_ms: float
    failures: dict[str, int]
    cpu_us_rounds: list[float]

    @property
    def failed(self) -> int:
        """How much went wrong, of any kind."""
        return sum(self.failures.values())


@dataclass(frozen=True)
class Footprint:
    """What a system takes besides CPU: memory when ready and at most, and time to be ready."""

    system: str
    idle_mb: float
    peak_mb: float
    ready_seconds: float


@dataclass(frozen=True)
class Report:
    """A whole run."""

    machine: dict[str, str]
    rows: list[Row]
    footprints: list[Footprint]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def summarize(scenario: str, unit: str, rounds: Mapping[str, Sequence[Round]]) -> list[Row]:
    """One row for each system.

    A ratio is the median of the rounds' own ratios: a slow moment of the machine hits both sides of one.
    """
    baseline = rounds.get(BASELINE)
    rows = []
    for system, own in rounds.items():
        pairs = zip(own, baseline or (), strict=baseline is not None)
        ratios = [one.cpu_us / base.cpu_us for one, base in pairs]
        rows.append(
            Row(
                scenario,
                unit,
                system,
                cpu_us=median(one.cpu_us for one in own),
                ratio=median(ratios) if ratios else None,
                p50_ms=median(one.p50_ms for one in own),
                p99_ms=median(one.p99_ms for one in own),
                failures=dict(sum((one.failures for one in own), Counter[str]())),
                cpu_us_rounds=[round(one.cpu_us, 2) for one in own],
            )
        )
    return rows


def footprint(target: Target) -> Footprint:
    """Read while it still runs."""
    return Footprint(target.name, target.idle_mb, target.peak_mb(), target.ready_seconds)


def describe_machine(cores: Sequence[int]) -> dict[str, str]:
    """Whatever a stranger needs to compare."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = cpu[0].partition(":")[2].strip() if cpu else platform.machine()
    use = f"served on {cores[0]}, loaded from {cores[1]}, load average {os.getloadavg()[0]:.1f}"
    return {
        "machine": f"{model}, {os.cpu_count()} cores ({use})",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join([*(f"{name} {installed(name)}" for name in PACKAGES), nginx_version()]),
        "commit": commit(),
    }


def installed(package: str) -> str:
    """A package's version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def nginx_version() -> str:
    """As nginx says it."""
    try:
        return output(find_nginx(), "-v").rpartition(" ")[2].replace("/", " ")
    except BenchError:
        return "nginx absent"


def commit() -> str:
    """The commit measured, and whether the tree has moved on from it."""
    git = shutil.which("git")
    name = output(git, "rev-parse", "--short", "HEAD") if git else ""
    if git is None or not name:
        return "none"
    return f"{name}, with changes" if output(git, "status", "--porcelain") else name


def output(*command: str) -> str:
    """What a command prints on either stream, or nothing where it fails."""
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


def render(report: Report) -> str:
    """The text of a run."""
    lines = [f"{name + ':':<10}{value}" for name, value in report.machine.items()]
    lines += ["", *render_table(report.rows), ""]
    for one in report.footprints:
        sizes = f"{one.idle_mb:.0f} MB when ready, {one.peak_mb:.0f} MB at most"
        lines.append(f"{one.system}: resident {sizes}; ready after {one.ready_seconds:.2f} s")
    for row in report.rows:
        what = ", ".join(f"{fault} {times}" for fault, times in row.failures.items())
        lines += [f"FAILED {row.scenario} {row.system}: {what}"] if what else []
    return "\n".join(lines)


def render_table(rows: Sequence[Row]) -> list[str]:
    """The table, its columns as wide as they must be."""
    header = ("scenario", "system", "CPU us", "x nginx", "p50 ms", "p99 ms", "failed")
    cells = [
        (
            f"{row.scenario}, per {row.unit}",
            row.system,
            f"{row.cpu_us:.1f}",
            "-" if row.ratio is None else f"{row.ratio:.2f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            str(row.failed),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    rule = tuple("-" * width for width in widths)
    return [
        " | ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (header, rule, *cells)
    ]
