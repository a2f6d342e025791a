"""Unicode normal forms in linear time (pure)."""

import unicodedata
from typing import Final, Literal

MARKS_MAX: Final = 30
"""Combining marks in a row that are kept, as in the Stream-Safe Text Format
(https://www.unicode.org/reports/tr15/#Stream_Safe_Text_Format). No writing system needs as many."""


def normalize(form: Literal["NFC", "NFKC"], text: str) -> str:
    """Return a text in a normal form, without the combining marks that follow 30 others.

    CPython sorts the marks in a row by insertion: 48,000 of two classes would take five seconds.
    """
    if text.isascii():
        return text
    marks = frozenset(filter(_is_mark, set(text)))
    return unicodedata.normalize(form, _without_long_runs(text, marks) if marks else text)


def _is_mark(char: str) -> bool:
    """Whether a character is a combining mark, or becomes one or several of them."""
    return unicodedata.combining(unicodedata.normalize("NFKD", char)[0]) != 0


def _without_long_runs(text: str, marks: frozenset[str]) -> str:
    kept, run = list[str](), 0
    for char in text:
        run = run + 1 if char in marks else 0
        if run <= MARKS_MAX:
            kept.append(char)
    return "".join(kept)
