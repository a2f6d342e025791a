"""A histogram as Prometheus reads it: counts by upper bounds, and the sum of all values."""

import bisect
import itertools
from collections.abc import Sequence


class Histogram:
    """Counts values since start-up.

    Args:
        bounds: The upper bounds of the buckets, in ascending order; a last bucket has the rest.
    """

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        """The sum of all values."""

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the upper bound of each bucket with the number of values up to it."""
        bounds = (*map(str, self._bounds), "+Inf")
        return [*zip(bounds, itertools.accumulate(self._counts), strict=True)]
