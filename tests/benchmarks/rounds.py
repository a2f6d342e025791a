"""The result of one round: figures and failures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What the client measured in a round: the times of good exchanges, and the number of faults by kind."""

    latencies_ms: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    """Between two events of a stream."""
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Round:
    """One round's figures for one system, by their names in `tests.benchmarks.report.FIGURES`."""

    figures: dict[str, float]
    failures: Counter[str] = field(default_factory=Counter)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
