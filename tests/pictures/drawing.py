"""Draw text on a terminal, and a filled-in form, as SVG on a light card that is readable on any page."""

import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple
from xml.sax.saxutils import escape, quoteattr, unescape

INK, SOFT, LINE, CARD, FIELD, ACCENT = "#1a2223", "#475153", "#c5cecd", "#f4f6f5", "#ffffff", "#0a5455"
LEVELS: Final = {"ok": ACCENT, "正常": ACCENT}
"""The colour of a line by its first word."""
SANS: Final = "system-ui, 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif"
MONO: Final = "ui-monospace, 'DejaVu Sans Mono', 'Sarasa Mono SC', 'Noto Sans Mono CJK SC', monospace"
COLUMNS: Final = 100
COLUMN, ROW, MARGIN = 8, 20, 20
FORM_WIDTH, FIELD_HEIGHT = 420, 62


class Form(NamedTuple):
    """A dialog."""

    title: str
    fields: Sequence[tuple[str, str]]
    """Labels and values."""
    buttons: Sequence[str]


def terminal(text: str, title: str) -> str:
    """Draw lines of text, wrapped."""
    lines = [line for whole in text.splitlines() for line in _wrapped(whole)]
    width = max(map(_columns, lines)) * COLUMN + 2 * MARGIN
    height = len(lines) * ROW + 2 * MARGIN
    drawn = [_card(0, width, height), f'<g font-family="{MONO}" font-size="13" fill="{INK}">']
    for place, line in enumerate(lines):
        y = MARGIN + place * ROW + 14
        indent = len(line) - len(line.lstrip())
        word, _, rest = line.strip().partition(" ")
        if line[:1].isspace() or word not in LEVELS:
            drawn.append(f'<text x="{MARGIN + indent * COLUMN}" y="{y}">{escape(line.strip())}</text>')
            continue
        drawn.append(
            f'<text x="{MARGIN}" y="{y}" fill="{LEVELS[word]}" font-weight="600">{escape(word)}</text>'
        )
        rest_at = MARGIN + _columns(line.removesuffix(rest.lstrip())) * COLUMN
        drawn.append(f'<text x="{rest_at}" y="{y}">{escape(rest.lstrip())}</text>')
    return _picture(title, width, height, [*drawn, "</g>"])


def forms(dialogs: Sequence[Form], title: str, note: str) -> str:
    """Draw dialogs side by side, and a note below them."""
    gap = 24
    width = len(dialogs) * FORM_WIDTH + (len(dialogs) - 1) * gap
    height = 64 + max(len(dialog.fields) for dialog in dialogs) * FIELD_HEIGHT + 64
    drawn = [f'<g font-family="{SANS}" font-size="14" fill="{INK}">']
    for place, dialog in enumerate(dialogs):
        drawn.extend(_dialog(dialog, place * (FORM_WIDTH + gap), height))
    drawn.append(_card(0, width, 36, y=height + 12))
    drawn.append(f'<text x="{MARGIN}" y="{height + 35}" font-size="13" fill="{SOFT}">{escape(note)}</text>')
    return _picture(title, width, height + 48, [*drawn, "</g>"])


def texts(svg: str) -> list[str]:
    """Return the texts of a drawing in order."""
    return [unescape(text) for text in re.findall(r"<text [^>]*>(.*?)</text>", svg)]


def _dialog(dialog: Form, x: int, height: int) -> Iterator[str]:
    left, inner = x + MARGIN, FORM_WIDTH - 2 * MARGIN
    yield _card(x, FORM_WIDTH, height)
    yield f'<text x="{left}" y="38" font-size="17" font-weight="600">{escape(dialog.title)}</text>'
    for place, (label, value) in enumerate(dialog.fields):
        y = 64 + place * FIELD_HEIGHT
        yield f'<text x="{left}" y="{y + 10}" font-size="13" fill="{SOFT}">{escape(label)}</text>'
        yield _box(left, y + 17, inner, FIELD)
        yield f'<text x="{left + 10}" y="{y + 38}" font-family="{MONO}" font-size="13">{escape(value)}</text>'
    right = x + FORM_WIDTH - MARGIN
    for place, button in enumerate(reversed(dialog.buttons)):
        at, fill, ink = right - 88 - place * 100, FIELD, INK
        if place == 0:
            fill, ink = ACCENT, FIELD
        yield _box(at, height - 52, 88, fill)
        yield (
            f'<text x="{at + 44}" y="{height - 31}" fill="{ink}" text-anchor="middle">{escape(button)}</text>'
        )


def _box(x: int, y: int, width: int, fill: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="32" rx="4" fill="{fill}" stroke="{LINE}"/>'


def _card(x: int, width: int, height: int, y: int = 0) -> str:
    return (
        f'<rect x="{x + 0.5}" y="{y + 0.5}" width="{width - 1}" height="{height - 1}" rx="8" '
        f'fill="{CARD}" stroke="{LINE}"/>'
    )


def _picture(title: str, width: int, height: int, drawn: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label={quoteattr(title)}>'
    )
    return "\n".join([head, *drawn, "</svg>"]) + "\n"


def _wrapped(line: str) -> list[str]:
    """Break a line at spaces or between wide characters, and indent the rest like its text."""
    if _columns(line) <= COLUMNS:
        return [line]
    indent = " " * 8
    if line.isascii():
        return textwrap.wrap(line, COLUMNS, subsequent_indent=indent, break_on_hyphens=False)
    broken, current = [], ""
    for character in line:
        if _columns(current + character) > COLUMNS:
            broken.append(current)
            current = indent
        current += character
    return [*broken, current]


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
