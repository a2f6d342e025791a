r"""Formulas in Markdown: `$..$`, `$$..$$`, `\(..\)` and `\[..\]`, as rules of markdown-it, and as MathML.

The search for a closing delimiter is bounded, so that many opening delimiters take linear time.

latex2mathml writes its tree without escaping, so that `\text{<b>}` would become a tag. Therefore the tree is
serialised here. https://www.w3.org/TR/mathml-core/
"""

import html
import re
from typing import Final
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import Converter
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

INLINE: Final = "formula_inline"
DISPLAY: Final = "formula_display"
BLOCK: Final = "formula_block"
FORMULA_CHARS_MAX: Final = 4_000

LATEX_CHARS_MAX: Final = 2_000
_DEPTH_MAX: Final = 40
# Definitions can grow without bound; the others put addresses, styles and names into the tree.
_REFUSED: Final = re.compile(
    r"\\(?:(?:re)?newcommand|providecommand|def|gdef|edef|xdef|let|DeclareMathOperator|require"
    r"|href|url|html\w*|style|class|cssId|includegraphics|unicode)(?![A-Za-z])"
)

_ENDS: Final = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}
_DISPLAY: Final = ("$$", "\\[")
# A formula does not contain these; text between two prices, or code, may.
_NO_FORMULA: Final = frozenset("。！？`")
_AFTER_FORMULA: Final = " \t\r.,;:。，；："


def formula_inline(state: StateInline, silent: bool) -> bool:  # noqa: FBT001  markdown-it's own signature
    """Parse a formula within a line: an inline rule, to run before `escape`."""
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
    """Return the position of a closing delimiter that is not escaped, or -1."""
    place = text.find(end, start, limit)
    while place > start and end[0] == "$" and text[place - 1] == "\\":
        place = text.find(end, place + 1, limit)
    return place


def _is_no_price(state: StateInline, content: str, end: int) -> bool:
    """Apply Pandoc's rule (no blanks inside, no digit after), and require that no digit precedes."""
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
    """Parse a formula on separate lines: a block rule, to run before `fence`."""
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
    """Return the formula without the quotation marks and indentation of its lines."""
    starts = [start, *(state.bMarks[line] + state.tShift[line] for line in range(first + 1, last + 1))]
    ends = [*(state.eMarks[line] for line in range(first, last)), end]
    return "\n".join(state.src[begin:finish] for begin, finish in zip(starts, ends, strict=True)).strip()


def to_mathml(latex: str, *, display: bool) -> str | None:
    """Return a formula as a `<math>` element, or None if it is invalid or too large.

    Args:
        latex: The formula without its delimiters.
        display: Whether it is displayed on a separate line.
    """
    if len(latex) > LATEX_CHARS_MAX or _REFUSED.search(latex) or _depth(latex) > _DEPTH_MAX:
        return None
    kind = "block" if display else "inline"
    try:
        tree = Converter(display=kind).convert_to_element(latex)
        del tree.attrib["xmlns"]
        _undo_entities(tree)
        return tostring(tree, encoding="unicode", short_empty_elements=False)
    except Exception:  # the library raises arbitrary exceptions for invalid input
        return None


def _depth(latex: str) -> int:
    """Return the maximum depth of nested groups: the library recurses for each."""
    deepest = depth = 0
    for found in re.finditer(r"\\.|[{}^_]|\\left|\\right", latex):
        mark = found.group()
        if mark == "{":
            depth += 1
        elif mark == "}":
            depth -= 1
        deepest = max(deepest, depth)
    return deepest


def _undo_entities(tree: Element) -> None:
    """Replace entities such as `&#x0003D;` in the library's tree by characters, which `tostring` escapes."""
    for element in tree.iter():
        if element.text:
            element.text = html.unescape(element.text)
