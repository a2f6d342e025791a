r"""Formulas in Markdown: `$..$`, `$$..$$`, `\(..\)` and `\[..\]`, as rules of markdown-it.

The search for an end is bounded, so that a thousand openings cost no more than their text.
"""

from typing import Final

from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

INLINE: Final = "formula_inline"
DISPLAY: Final = "formula_display"
BLOCK: Final = "formula_block"
FORMULA_CHARS_MAX: Final = 4_000

_ENDS: Final = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}
_DISPLAY: Final = ("$$", "\\[")
# No formula holds these: two prices with words between them, or code.
_NO_FORMULA: Final = frozenset("。！？`")
_AFTER_FORMULA: Final = " \t\r.,;:。，；："


def formula_inline(state: StateInline, silent: bool) -> bool:  # noqa: FBT001  markdown-it's own signature
    """Take a formula within a line: an inline rule, to stand before `escape`."""
    opening = next((mark for mark in _ENDS if state.src.startswith(mark, state.pos)), None)
    if opening is None:
        return False
    start = state.pos + len(opening)
    end = _find(state.src, _ENDS[opening], start, min(state.posMax, start + FORMULA_CHARS_MAX))
    content = state.src[start : max(start, end)]
    if not content.strip() or (opening == "$" and not _is_no_price(state, content, end)):
        return False
    if not silent:
        token = state.push(DISPLAY if opening in _DISPLAY else INLINE, "", 0)
        token.content = content.strip()
        token.markup = opening
    state.pos = end + len(opening)
    return True


def _find(text: str, end: str, start: int, limit: int) -> int:
    """Where an end stands that is not escaped; -1 without one."""
    place = text.find(end, start, limit)
    while place > start and end[0] == "$" and text[place - 1] == "\\":
        place = text.find(end, place + 1, limit)
    return place


def _is_no_price(state: StateInline, content: str, end: int) -> bool:
    """Pandoc's rule: no blanks inside, no digit after; and no digit before."""
    before = state.src[state.pos - 1] if state.pos > 0 else ""
    after = state.src[end + 1] if end + 1 < state.posMax else ""
    blank = content[0].isspace() or content[-1].isspace()
    return not (blank or after.isdigit() or before.isdigit() or _NO_FORMULA.intersection(content))


def formula_block(
    state: StateBlock,
    first: int,
    last: int,
    silent: bool,  # noqa: FBT001  markdown-it's own signature
) -> bool:
    """Take a formula on lines of its own: a block rule, to stand before `fence`."""
    start = state.bMarks[first] + state.tShift[first] + 2
    opening = state.src[start - 2 : start]
    if opening not in _DISPLAY or start > state.eMarks[first]:
        return False
    end = _find(state.src, _ENDS[opening], start, start + FORMULA_CHARS_MAX)
    line = first
    while end >= 0 and line < last and state.eMarks[line] < end:
        line += 1
        if line >= last or state.isEmpty(line) or state.sCount[line] < state.blkIndent:
            return False
    if end < 0 or line >= last or state.src[end + 2 : state.eMarks[line]].strip(_AFTER_FORMULA):
        return False
    content = _content(state, start, end, first, line)
    if not content:
        return False
    if not silent:
        token = state.push(BLOCK, "", 0)
        token.block = True
        token.content = content
        token.markup = opening
        token.map = [first, line + 1]
        state.line = line + 1
    return True


def _content(state: StateBlock, start: int, end: int, first: int, last: int) -> str:
    """The formula without what a quotation puts before its lines."""
    starts = [start, *(state.bMarks[line] + state.tShift[line] for line in range(first + 1, last + 1))]
    ends = [*(state.eMarks[line] for line in range(first, last)), end]
    return "\n".join(state.src[begin:finish] for begin, finish in zip(starts, ends, strict=True)).strip()
