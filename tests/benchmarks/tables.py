"""The Markdown of a run."""

from collections.abc import Sequence
from typing import Final

from tests.benchmarks.report import Figure, Report, Row
from tests.benchmarks.words import ENGLISH, Words

RATIOS: Final = frozenset({"x_nginx", "x_floor"})
SUMMARY: Final = (
    ("chat", "cpu_us"),
    ("burst", "cpu_us"),
    ("paced-500x30", "cpu_us"),
    ("open", "p99_ms"),
    ("start", "idle_mb"),
)
"""What the short table shows."""


def number(value: float) -> str:
    """Three significant digits, and whole numbers from 100."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 10 else f"{value:.2g}"


def cell(name: str, figure: Figure | None) -> str:
    """One figure."""
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


def table(lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first line is its heading."""
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head.replace("|  |", "| |"), "|---" * len(lines[0]) + "|", *rest])
