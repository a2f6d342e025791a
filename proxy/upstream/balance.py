"""Share requests out among several upstreams by their weights."""

from collections.abc import Container, Mapping, Sequence


class Balance:
    """Smooth weighted round robin, as nginx does it: exact shares, and the turns of each well apart.

    Args:
        weights: Of each upstream, by its name.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = dict(weights)
        self.names = tuple(self._weights)
        self._current = dict.fromkeys(self._weights, 0)

    def order(self, able: Container[str]) -> Sequence[str]:
        """All of them: the one whose turn it is, then those that are asked if it fails.

        Args:
            able: Among whom the turn goes; the others, whose turns count for nothing, come last.
        """
        if len(self.names) == 1:
            return self.names
        among = [name for name in self.names if name in able] or self.names
        for name in among:
            self._current[name] += self._weights[name]
        order = sorted(among, key=lambda name: self._current[name], reverse=True)
        self._current[order[0]] -= sum(self._weights[name] for name in among)
        return [*order, *(name for name in self.names if name not in among)]
