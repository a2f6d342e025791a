"""The limits in CI, with a margin: memory, and ratios to the references of the same run."""

from dataclasses import dataclass
from typing import Final

from tests.benchmarks.report import Report


@dataclass(frozen=True)
class Bar:
    """The highest value of a figure that passes."""

    scenario: str
    figure: str
    highest: float


BARS: Final = (Bar("chat", "x_floor", 2.0), Bar("paced-500x30", "x_nginx", 6.5), Bar("start", "idle_mb", 80))


def verdicts(report: Report) -> list[str]:
    """Return why the run does not pass: any failure, for its figures mean nothing, and figures over a bar."""
    faults = [f"{row.scenario}: {row.system} failed: {row.failures}" for row in report.rows if row.failed]
    for bar in BARS:
        measured = report.figure(bar.scenario, "proxy", bar.figure)
        if measured is None:
            faults.append(f"{bar.scenario}: {bar.figure} was not measured")
        elif measured.median > bar.highest:
            faults.append(f"{bar.scenario}: {bar.figure} is {measured.median:.2f}, over {bar.highest:g}")
    return faults
