"""One belief about a reply: a place, what it means, and why."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from proxy.recipe.outline import leaves

_SAME: Final = 0.1
"""Two lives that differ by less than this part say the same."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A place in a reply."""

    kind: Literal["path", "header", "text"]
    path: str
    """Dotted path in the JSON, or the header's name."""
    why: str
    """One clause, without a byte of a value that may be secret."""
    confidence: int
    """Around 100: named and looking like it; below 60: rather ask."""
    unit: str = ""
    """Of a life, as the settings' `as`."""
    lifetime: float | None = None
    """Seconds that it would mean."""
    value: Any = field(default=None, repr=False)
    local: bool = False
    """Whether it is a local time, whose zone the reply does not name."""

    def agrees_with(self, other: "Finding") -> bool:
        """Whether it makes no difference which of the two is taken."""
        if self.lifetime is not None and other.lifetime is not None:
            return abs(self.lifetime - other.lifetime) <= _SAME * max(self.lifetime, other.lifetime)
        return bool(self.value == other.value)


def path_leaves(body: Any) -> Iterator[tuple[str, str, Any]]:
    """(dotted path, name, value) of all that a dotted path can reach; a list's items have the list's name."""
    for path, value in leaves(body):
        if not path or any(not step or "." in step for step in path):
            continue
        name = next((step for step in reversed(path) if not step.isdigit()), "")
        yield ".".join(path), name, value
