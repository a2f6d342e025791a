"""What one round gives: figures, and everything that went wrong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What a round's client saw: how long each good exchange took, and what went wrong how often."""

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
