"""LaTeX as MathML, by latex2mathml.

The library writes its tree with the entities undone, so that `\\text{<b>}` would become a tag: the tree is
taken from it and written here. https://www.w3.org/TR/mathml-core/
"""

import html
import re
from typing import Final
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import Converter

LATEX_CHARS_MAX: Final = 2_000
_DEPTH_MAX: Final = 40
# Definitions grow without bound; the others carry addresses, styles and names into the tree.
_REFUSED: Final = re.compile(
    r"\\(?:(?:re)?newcommand|providecommand|def|gdef|edef|xdef|let|DeclareMathOperator|require"
    r"|href|url|html\w*|style|class|cssId|includegraphics|unicode)(?![A-Za-z])"
)


def to_mathml(latex: str, *, display: bool) -> str | None:
    """A formula as a `<math>` element; None where it cannot be read, or is too large.

    Args:
        latex: Without its delimiters.
        display: Whether it stands on a line of its own.
    """
    if len(latex) > LATEX_CHARS_MAX or _REFUSED.search(latex) or _depth(latex) > _DEPTH_MAX:
        return None
    kind = "block" if display else "inline"
    try:
        tree = Converter(display=kind).convert_to_element(latex)
        del tree.attrib["xmlns"]
        _undo_entities(tree)
        return tostring(tree, encoding="unicode", short_empty_elements=False)
    except Exception:  # it raises whatever Python does on what it does not know
        return None


def _depth(latex: str) -> int:
    """How deep its groups nest, at most: the library calls itself for each, and for each script."""
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
    """The library writes characters as `&#x0003D;`: make them characters, which are escaped when written."""
    for element in tree.iter():
        if element.text:
            element.text = html.unescape(element.text)
