"""Rewrite JSON that only Python reads as strict JSON, without changing the spelling of anything else.

Python reads and writes `NaN` and `Infinity`, and halves of characters: gateways that cut texts between UTF-16
units write the emoji 😀 as `"\\ud83d"` in one chunk and `"\\ude00"` in the next.
"""

import re
from typing import Final

_STRING_OR_NAN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|-?Infinity|NaN', re.DOTALL)
_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\.",
    re.DOTALL,
)
_MARK: Final = b"\xff"
"""A byte that UTF-8 does not use, and that a parser skips inside a string."""
_MARKED: Final = re.compile(_MARK + rb"(u[dD][89a-fA-F][0-9a-fA-F]{2})")


def without_nan(text: bytes) -> bytes:
    """Write null for numbers that are not numbers."""
    return _STRING_OR_NAN.sub(lambda found: found[0] if found[0].startswith(b'"') else b"null", text)


def mark_halves(text: bytes) -> bytes:
    """Replace the backslash before each half of a character by a mark, so that a strict parser skips it."""
    return _ESCAPE.sub(lambda found: found[0] if found["half"] is None else _MARK + found["half"], text)


def restore_halves(text: bytes) -> bytes:
    """Replace the marks by backslashes again."""
    return _MARKED.sub(rb"\\\1", text)
