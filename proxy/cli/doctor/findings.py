"""What the checks found: each result has an id, a level, and words in two languages (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

VALUE_CHARACTERS_MAX: Final = 200


class Level(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    NOTE = "note"
    """Information that requires no action."""
    WARNING = "warning"
    """It works, but not well or not for every client."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """The check was skipped because of an earlier failure."""


class Explanation(NamedTuple):
    """A finding in one language. `{name}` is a placeholder for one of its values."""

    happened: str
    cause: str = ""
    cure: str = ""


class Entry(NamedTuple):
    """A kind of finding."""

    level: Level
    english: Explanation
    chinese: Explanation


@dataclass(frozen=True, slots=True)
class Finding:
    """One result.

    Args:
        id: The key of its entry in the catalogue.
        subject: The part that was tested, such as `upstreams.chat`.
        values: The values of the placeholders. They may come from a server, so they are cleaned when shown.
        detail: The words that the service would log, in English.
    """

    id: str
    subject: str
    values: Mapping[str, object] = field(default_factory=dict)
    detail: str = ""

    def words(self, entry: Entry, language: str) -> Explanation:
        """Return the words in a language, `zh` or `en`."""
        values = {name: clean(str(value)) for name, value in self.values.items()}
        chosen = entry.chinese if language == "zh" else entry.english
        return Explanation(*(part.format(**values) for part in chosen))


def clean(text: str, limit: int = VALUE_CHARACTERS_MAX) -> str:
    """Return one line of bounded length without control characters, bidirectional marks and the like."""
    shown = "".join(c if c.isprintable() else " " for c in text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[:limit]}..."
