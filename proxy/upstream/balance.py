"""Share requests out among several upstreams by their weights."""

from collections.abc import Mapping, Sequence


class Balance:
    """Smooth weighted round robin, as nginx does it: exact shares, and the turns of each well apart.

    Args:
        weights: Of each upstream, by its name.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = dict(weights)
        self._total = sum(self._weights.values())
        self.names = tuple(self._weights)
        self._current = dict.fromkeys(self._weights, 0)

    def order(self) -> Sequence[str]:
        """All of them: the one whose turn it is, then those that are asked if it fails."""
        if len(self._weights) == 1:
            return self.names
        for name, weight in self._weights.items():
            self._current[name] += weight
        order = sorted(self._current, key=lambda name: self._current[name], reverse=True)
        self._current[order[0]] -= self._total
        return order
