r"""Formulas in Markdown: `$..$`, `$$..$$`, `\(..\)` and `\[..\]`, as rules of markdown-it, and as MathML.

The search for a closing delimiter is bounded, so that many opening delimiters take linear time.

math-core writes MathML Core, which browsers draw without scripts: https://www.w3.org/TR/mathml-core/. Its
output is adapted to Chromium, which neither draws `menclose` nor places accents well.
"""

import re
from typing import Final
from xml.etree.ElementTree import Element, ParseError, SubElement, fromstring, tostring

from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from math_core import LatexError, LatexToMathML

from proxy.chat.markdown.chemistry import write_chemistry

INLINE: Final = "formula_inline"
DISPLAY: Final = "formula_display"
BLOCK: Final = "formula_block"
FORMULA_CHARS_MAX: Final = 4_000

LATEX_CHARS_MAX: Final = 2_000
_DEPTH_MAX: Final = 40
# Definitions can grow without bound; the others put addresses, styles and names into the tree.
_REJECTED: Final = re.compile(
    r"\\(?:(?:re)?newcommand|providecommand|def|gdef|edef|xdef|let|DeclareMathOperator|require"
    r"|href|url|html\w*|style|class|cssId|includegraphics|unicode)(?![A-Za-z])"
)
_MACROS: Final = {
    **dict.fromkeys(("tiny", "small", "normalsize", "large", "Large", "label", "ref"), ""),
    "argmax": r"\operatorname*{arg\,max}",
    "argmin": r"\operatorname*{arg\,min}",
    "celsius": r"^\circ\mathrm{C}",
    "hdots": r"\ldots",
    "mbox": r"\text{#1}",
    "wideparen": r"\overparen{#1}",
}
_CONVERTER: Final = LatexToMathML(fancy_error=False, macros=_MACROS)
_ENVIRONMENT: Final = re.compile(r"\\(begin|end)\{([a-z]+)\*?\}")
_PAIRS: Final = re.compile(r"(?<=\\begin\{)(alignat\*?\})\s*\{\d{1,2}\}")
_ALIASES: Final = {
    **dict.fromkeys(("align", "alignat", "eqnarray", "flalign", "split"), "aligned"),
    **dict.fromkeys(("gather", "multline"), "gathered"),
    "equation": "",
    "smallmatrix": "matrix",
}
"""Environments that number their lines, or that math-core does not know, and their replacements."""
_TAG: Final = re.compile(r"\\tag\*?\{([^{}]*)\}")
_ALONE_TAG: Final = re.compile(r"\A([^\\]*)(\\tag\*?\{[^{}]*\})((?:[^\\]|\\[^\\])*)\Z")
"""A tag before the end of a formula of one line, which is shown behind it."""
_IGNORED: Final = re.compile(r"\\(?:label\{[^{}]*\}|nonumber|notag)(?![A-Za-z])")
_TIGHT: Final = re.compile(r"\\!\s*(?=\\left(?![A-Za-z]))")
"""A negative space before a bracket. It cancels a space of TeX's that math-core does not write."""
_ANGLE: Final = re.compile(r"\\(left|right)\s*([<>])")
_SUBSTACK: Final = re.compile(r"\\substack\s*\{")
_BOX: Final = "border: 0.06em solid; padding: 0.2em"
_STRIKE: Final = "linear-gradient(to {}, transparent 47%, currentcolor 47% 53%, transparent 53%)"
_STRIKES: Final = {"updiagonalstrike": "top left", "downdiagonalstrike": "top right"}
_FONTS: Final = {"b": "font-weight: bold", "i": "font-style: italic"}
_ACCENTS: Final = frozenset("\u02c6\u02c7\u02d8\u02d9\u02da\u02dc\u00a8\u00af\u00b4`\u20d7")
_STRUT: Final = {"width": "0", "height": "0.7em", "depth": "0.25em"}
_TIGHT_CELL: Final = "padding-top: 0"
_PRIMES: Final = frozenset("\u2032\u2033\u2034\u2057")
_COMBINING: Final = {"\u20d7": "\u2192"}
"""Combining characters that fonts place next to the letter, and the accents to draw above it instead."""

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

    `alttext` contains the formula as it was written, for those who copy it.

    Args:
        latex: The formula without its delimiters.
        display: Whether it is displayed on a separate line.
    """
    if len(latex) > LATEX_CHARS_MAX or _REJECTED.search(latex) or _depth(latex) > _DEPTH_MAX:
        return None
    try:
        tree = fromstring(_CONVERTER.convert_with_local_state(_rewrite(latex), displaystyle=display))  # noqa: S314
    except (LatexError, ParseError):
        return None
    for element in tree.iter():
        _adapt(element)
    tree.set("alttext", latex)
    return tostring(tree, encoding="unicode", short_empty_elements=False)


def _rewrite(latex: str) -> str:
    """Replace what math-core does not know by its equivalents."""
    latex = _ALONE_TAG.sub(r"\1\3\2", _IGNORED.sub("", write_chemistry(latex)))
    latex = _TAG.sub(r"\\qquad\\text{(\1)}", latex)
    latex = _TIGHT.sub("", latex)
    latex = _ANGLE.sub(lambda found: rf"\{found[1]}\{'l' if found[2] == '<' else 'r'}angle ", latex)
    latex = _ENVIRONMENT.sub(_rename, _PAIRS.sub(r"\1", latex))
    for _ in range(latex.count(r"\substack")):
        latex = _write_subarray(latex)
    return latex


def _rename(found: re.Match[str]) -> str:
    name = _ALIASES.get(found[2])
    if name is None:
        return found[0]
    return rf"\{found[1]}{{{name}}}" if name else ""


def _write_subarray(latex: str) -> str:
    r"""Replace the first `\substack{...}` by an environment."""
    opening = _SUBSTACK.search(latex)
    if opening is None:
        return latex
    depth, end = 1, opening.end()
    while end < len(latex) and depth:
        depth += {"{": 1, "}": -1}.get(latex[end], 0)
        end += 1
    content = latex[opening.end() : end - 1]
    return rf"{latex[: opening.start()]}\begin{{subarray}}{{c}}{content}\end{{subarray}}{latex[end:]}"


def _adapt(element: Element) -> None:
    """Write an element as Chromium draws it, and without HTML."""
    if element.tag == "menclose":
        lines = element.attrib.pop("notation", "").split()
        strikes = [_STRIKE.format(_STRIKES[line]) for line in lines if line in _STRIKES]
        element.tag = "mrow"
        element.set("style", f"background: {', '.join(strikes)}" if strikes else _BOX)
    elif element.tag == "msup" and _PRIMES.issuperset(element[1].text or " "):
        element.tag = "mrow"  # the font's primes are raised already
        element[1].attrib.update(lspace="0", rspace="0")
    elif element.tag == "mover" and (mark := element[1].text or "") in _ACCENTS:
        element.attrib.pop("accent", None)
        element[1].text = _COMBINING.get(mark, mark)
        element[1].set("stretchy", "false")
    elif element.tag == "mtr" and len(element) and not element[0].get("style", "").startswith(_TIGHT_CELL):
        SubElement(
            element[0], "mspace", _STRUT
        )  # so that rows without high letters are as high as the others
    elif element.tag == "mtext" and len(element):
        fonts = {_FONTS[inner.tag] for inner in element.iter() if inner.tag in _FONTS}
        element.text = "".join(element.itertext())
        del element[:]
        element.set("style", "; ".join(sorted(fonts)))


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
