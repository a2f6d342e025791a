"""Whose stored data makes room when the memory for the chat is full.

Deleting the oldest data of everybody would let one visitor erase what all others have stored, by storing a
lot. Instead, the visitor who uses the most memory loses his own oldest entry.
"""

from collections import Counter
from collections.abc import Iterable


def nobody(channel: str) -> str:  # noqa: ARG001  as if nobody owned it
    """Count every channel to the same visitor, so that the oldest one makes room."""
    return ""


class Shares:
    """How much of a limited memory each visitor uses."""

    def __init__(self) -> None:
        self._visitors: dict[str, str] = {}
        self._used: Counter[str] = Counter()

    def add(self, entry: str, amount: int, visitor: str) -> None:
        """Count an amount for an entry, to the visitor to whom the entry counts already if there is one."""
        self._used[self._visitors.setdefault(entry, visitor)] += amount

    def remove(self, entry: str, amount: int) -> None:
        """Stop counting an entry, for which this amount was counted in all."""
        visitor = self._visitors.pop(entry)
        self._used[visitor] -= amount
        if not self._used[visitor]:
            del self._used[visitor]

    def choose(self, entries: Iterable[str], spared: str) -> str | None:
        """Return the entry that makes room: the first one of the visitor who uses most.

        Args:
            entries: All entries, the oldest first.
            spared: An entry that is in use. If that visitor has no other one, the first of all makes room.
        """
        heaviest = max(self._used, key=self._used.__getitem__)
        first = None
        for entry in entries:
            if entry != spared:
                if self._visitors[entry] == heaviest:
                    return entry
                first = first or entry
        return first
