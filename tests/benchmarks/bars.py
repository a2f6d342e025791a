"""The limits in CI: ratios to the references of the same run, with a margin for a busy machine."""

from dataclasses import dataclass
from typing import Final

from tests.benchmarks.report import Report


@dataclass(frozen=True)
class Bar:
    """The highest ratio that passes."""

    scenario: str
    ratio: str
    highest: float


BARS: Final = (Bar("chat", "x_floor", 2.0), Bar("paced-500x30", "x_nginx", 6.5))


def verdicts(report: Report) -> list[str]:
    """Return why the run does not pass: any failure, for its figures mean nothing, and ratios over a bar."""
    faults = [f"{row.scenario}: {row.system} failed: {row.failures}" for row in report.rows if row.failed]
    for bar in BARS:
        figure = report.figure(bar.scenario, "proxy", bar.ratio)
        if figure is None:
            faults.append(f"{bar.scenario}: {bar.ratio} was not measured")
        elif figure.median > bar.highest:
            faults.append(f"{bar.scenario}: {bar.ratio} is {figure.median:.2f}, over {bar.highest:g}")
    return faults
