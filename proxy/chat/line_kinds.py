"""What kind of block a line of Markdown begins, as soon as enough of it is there (pure).

https://spec.commonmark.org/0.31.2/#blocks-and-inlines, tables as in GFM, formulas as in TeX.
"""

import enum
import re
from dataclasses import dataclass
from typing import Final

TAB_COLUMNS: Final = 4
PREFIX_CHARS_MAX: Final = 512
"""Of a line, for telling what it begins; indented further, it is text."""

_UNDECIDED: Final = re.compile(r"\s*(?:#{1,6}|`{1,2}|~{1,2}|[-+*]|\d{1,9}[.)]?|\$|\\)?")
_ITEM: Final = re.compile(r"[ \t]*(?:[-+*]|\d{1,9}[.)])(?P<gap>[ \t]*)(?P<rest>.?)", re.DOTALL)
_ITEM_MARK: Final = re.compile(r"(?:[-+*]|\d{1,9}[.)])(?:\s|$)")
_HEADING: Final = re.compile(r"#{1,6}(?:\s|$)|#{3,6}[^#]")
_FENCE_OPENS: Final = re.compile(
    r"(?P<indent>[ \t]*(?:(?:[-+*]|\d{1,9}[.)])[ \t]+)*)(?P<mark>`{3,}(?=[^`]*$)|~{3,})", re.DOTALL
)
_TABLE_RULE: Final = re.compile(r"[ \t]*+\|?+[ \t]*+:?-++:?[ \t]*+(?:\|[ \t]*+:?-++:?[ \t]*+)*+\|?\s*+")


class LineKind(enum.Enum):
    """What a line begins, or goes on with."""

    PARAGRAPH = enum.auto()
    HEADING = enum.auto()
    ITEM = enum.auto()
    QUOTE = enum.auto()
    TABLE = enum.auto()
    FENCE = enum.auto()
    FORMULA = enum.auto()


@dataclass(frozen=True, slots=True)
class Fence:
    """The opening line of a code block."""

    mark: str
    columns: int

    def is_closed_by(self, line: str) -> bool:
        """Whether this line closes it."""
        bare = line.strip()
        if len(bare) < len(self.mark) or bare.strip(self.mark[0]):
            return False
        return columns_of(line) <= self.columns + TAB_COLUMNS - 1


def is_decided(prefix: str) -> bool:
    """Whether more of the line would not change its kind."""
    return len(prefix) >= PREFIX_CHARS_MAX or not _UNDECIDED.fullmatch(prefix)


def kind_of(prefix: str) -> LineKind:
    """The kind of a line that begins so."""
    bare = prefix.lstrip(" \t\r")
    if bare.startswith("|"):
        return LineKind.TABLE
    if bare.startswith(">"):
        return LineKind.QUOTE
    if bare.startswith(("```", "~~~")):
        return LineKind.FENCE
    if bare.startswith(("$$", "\\[")):
        return LineKind.FORMULA
    if _HEADING.match(bare):
        return LineKind.HEADING
    return LineKind.ITEM if _ITEM_MARK.match(bare) else LineKind.PARAGRAPH


def columns_of(line: str) -> int:
    """How far a line is indented."""
    columns = 0
    for char in line:
        if char == "\t":
            columns += TAB_COLUMNS - columns % TAB_COLUMNS
        elif char == " ":
            columns += 1
        else:
            break
    return columns


def item_columns(prefix: str) -> int:
    """From which column on a line belongs to the item that begins so (CommonMark 5.2)."""
    found = _ITEM.match(prefix)
    mark = len(prefix.strip(" \t\r\n")) if found is None else found.start("gap") - _blanks(prefix)
    return columns_of(prefix) + mark + 1


def _blanks(prefix: str) -> int:
    return len(prefix) - len(prefix.lstrip(" \t"))


def fence_of(line: str) -> Fence | None:
    """The code block that a line opens, also as the content of a list item."""
    found = _FENCE_OPENS.match(line)
    if found is None:
        return None
    return Fence(found["mark"], columns_of(re.sub(r"[^\t]", " ", found["indent"]) + "."))


def is_table_rule(line: str) -> bool:
    """Whether a line is the one between a table's head and its rows."""
    return "|" in line and _TABLE_RULE.fullmatch(line) is not None
