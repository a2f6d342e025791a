"""Tokens that were used, by caller, model and upstream, since the start."""

from collections.abc import Iterator
from typing import Final, NamedTuple

MODELS_MAX: Final = 200
"""Callers choose the names of models: beyond so many different ones they count as one."""
MODEL_CHARACTERS_MAX: Final = 128
"""Longer names count as one, too."""
OTHER_MODEL: Final = "other"


class UsageKey(NamedTuple):
    """Who used what, and where."""

    caller: str
    model: str
    upstream: str


class UsageTotals:
    """Sums of prompt and completion tokens."""

    def __init__(self) -> None:
        self._totals: dict[UsageKey, tuple[int, int]] = {}
        self._models: set[str] = set()

    def add(self, caller: str, model: str, upstream: str, prompt: int, completion: int) -> None:
        """Count what one exchange used."""
        if model not in self._models:
            is_label = len(model) <= MODEL_CHARACTERS_MAX and model.isprintable()
            if not is_label or len(self._models) >= MODELS_MAX:
                model = OTHER_MODEL
            self._models.add(model)
        key = UsageKey(caller, model, upstream)
        before = self._totals.get(key, (0, 0))
        self._totals[key] = (before[0] + prompt, before[1] + completion)

    def __iter__(self) -> Iterator[tuple[UsageKey, tuple[int, int]]]:
        return iter([*self._totals.items()])
