"""The Markdown of a run."""

import math
from collections.abc import Sequence
from typing import Final

from tests.benchmarks.report import Curve, Figure, Report, Row
from tests.benchmarks.words import ENGLISH, Words

RATIOS: Final = frozenset({"x_nginx", "x_floor"})
SUMMARY: Final = (
    ("chat", "cpu_us"),
    ("burst", "cpu_us"),
    ("paced-500x30", "cpu_us"),
    ("open", "p99_ms"),
    ("start", "idle_mb"),
)
"""The scenarios of the short table."""
NEEDED_STREAMS: Final = (10_000, 100_000)
NEEDED_RATES: Final = (1, 10)
"""Events a second on each stream: a slow model, and a fast one."""


def number(value: float) -> str:
    """Format a number with three significant digits, and from 100 on as a whole number."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 10 else f"{value:.2g}"


def cell(name: str, figure: Figure | None) -> str:
    """Format one figure."""
    if figure is None:
        return ""
    if name in RATIOS:
        return f"{number(figure.median)}×"
    if number(figure.lowest) == number(figure.highest):
        return number(figure.median)
    return f"{number(figure.median)} ({number(figure.lowest)}–{number(figure.highest)})"


def render_report(report: Report, words: Words = ENGLISH) -> str:
    """Return all tables."""
    tables = [
        f"### {name}: {title}\n\n{render_scenario(rows, words)}"
        for name, title in words.scenarios.items()
        if (rows := report.of(name))
    ]
    return "\n\n".join([render_machine(report, words), *tables])


def render_machine(report: Report, words: Words) -> str:
    """Return a sentence about the run."""
    return words.measured.format(date=report.date, rounds=report.rounds, **report.machine)


def render_machine_briefly(report: Report, words: Words) -> str:
    """Return when, of which commit and on which machine the run was."""
    return words.measured_briefly.format(date=report.date, **report.machine)


def render_scenario(rows: Sequence[Row], words: Words) -> str:
    """Return the table of one scenario."""
    names = [name for name in words.figures if any(name in row.figures for row in rows)]
    failed = any(row.failed for row in rows)
    lines = [["", *(words.figures[name] for name in names), *([words.failed] if failed else [])]]
    for row in rows:
        lines.append([words.systems[row.system], *(cell(name, row.figures.get(name)) for name in names)])
        if failed:
            lines[-1].append(", ".join(f"{what} {times}" for what, times in row.failures.items()) or "0")
    return table(lines)


def render_summary(report: Report, words: Words, systems: Sequence[str] | None = None) -> str:
    """Return the short table: one line for each system."""
    columns = [(scenario, name) for scenario, name in SUMMARY if report.of(scenario)]
    heads = [words.summary[scenario] for scenario, _ in columns]
    lines = [["", *heads]]
    known = dict.fromkeys(row.system for row in report.rows)
    for system in systems or known:
        figures = [report.figure(scenario, system, name) for scenario, name in columns]
        ratios = [
            report.figure(scenario, system, "x_nginx") if name == "cpu_us" else None
            for scenario, name in columns
        ]
        lines.append([words.systems[system], *map(_with_ratio, figures, ratios)])
    return table(lines)


def _with_ratio(figure: Figure | None, ratio: Figure | None) -> str:
    if figure is None:
        return "–"
    return number(figure.median) if ratio is None else f"{number(figure.median)}, {number(ratio.median)}×"


def render_curve(curve: Curve, words: Words) -> str:
    """Return the table of a run with growing numbers of streams."""
    lines: list[Sequence[str]] = [words.curve]
    for point in curve.points:
        figures = (point.cpu_percent, point.memory_mb, point.lag_p99_ms, point.gap_p99_ms)
        cells = [number(figure) if figure else "–" for figure in figures]
        lines.append([str(point.workers), str(point.streams), *cells, str(point.faults)])
    return f"{words.climbed.format(date=curve.date, **curve.machine)}\n\n{table(lines)}"


def render_needs(curve: Curve, words: Words) -> str:
    """Return what larger numbers of streams need, by the costs of one worker's largest point."""
    idle, *_, largest = curve.of(1)
    cores_each = (largest.cpu_percent - idle.cpu_percent) / 100 / largest.streams
    mb_each = (largest.memory_mb - idle.memory_mb) / largest.streams
    lines: list[Sequence[str]] = [words.needs]
    for streams in NEEDED_STREAMS:
        for rate in NEEDED_RATES:
            cores = math.ceil(streams * rate * cores_each)
            gigabytes = (cores * idle.memory_mb + streams * mb_each) / 1000
            lines.append(
                [f"{streams:,}", f"{streams * rate:,}", f"{cores:,}", number(gigabytes), f"{2 * streams:,}"]
            )
    return table(lines)


def table(lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first line is its heading."""
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head.replace("|  |", "| |"), "|---" * len(lines[0]) + "|", *rest])
