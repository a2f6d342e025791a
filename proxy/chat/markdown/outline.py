"""The structure of Markdown that is still being written: its blocks, and the inline constructs left open."""

import functools
import re
from typing import Final

import msgspec
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from proxy.chat.markdown.parser import build_parser

_DELIMITERS: Final = re.compile(r"[*_~`$\[\\]")
DELIMITERS_MAX: Final = 64
"""A text with more of them is not searched: it takes long, and is not prose."""
_BRACKET: Final = re.compile(r"[\[\]]")
_OPEN_LINK_TARGET: Final = re.compile(r"\]\([^()\n]*$")
# A "$" before a blank is a dollar sign, and so is one before the end of a sentence.
_OPEN_INLINE_FORMULA: Final = re.compile(r"\$(?![\s$])[^$。！？｡]*$")


class Block(msgspec.Struct, frozen=True):
    """A top-level block, or an item of a top-level list.

    Args:
        type: The type of markdown-it's token without `_open`, such as `paragraph`, `list_item` or `fence`.
        line: The number of its first line.
    """

    type: str
    line: int


def find_blocks(text: str) -> list[Block]:
    """Return the top-level blocks of a text, with each list replaced by its items."""
    parser = _parser()
    tokens: list[Token] = []
    parser.block.parse(text, parser, {}, tokens)
    return [
        Block(token.type.removesuffix("_open"), token.map[0])
        for token in tokens
        if token.map is not None
        and token.nesting >= 0
        and (
            (token.level == 0 and not token.type.endswith("_list_open"))
            or (token.level == 1 and token.type == "list_item_open")
        )
    ]


class OpenSpans:
    """The inline constructs that a text begins and does not end: more text may still close them.

    Args:
        text: A part of one line.
    """

    def __init__(self, text: str) -> None:
        self.emphasis: frozenset[str] = frozenset()
        """The characters of unmatched opening delimiters: `*`, `_` or `~`."""
        self.formula: str = ""
        r"""The end of a displayed formula that may continue on the next line: `$$` or `\]`."""
        self._others = False
        if 0 < len(_DELIMITERS.findall(text)) <= DELIMITERS_MAX:
            self._parse(text)

    def __bool__(self) -> bool:
        return bool(self.emphasis or self.formula or self._others)

    def _parse(self, text: str) -> None:
        parser = _parser()
        state = StateInline(text, parser, {}, [])
        parser.inline.tokenize(state)
        for rule in parser.inline.ruler2.getRules(""):
            rule(state)
        self.emphasis = frozenset(
            chr(delimiter.marker) for delimiter in state.delimiters if delimiter.open and delimiter.end < 0
        )
        # What the parser could not match remains as text.
        plain = "".join(token.content for token in state.tokens if token.type == "text")
        escapes = {token.markup for token in state.tokens if token.type == "text_special"}
        if "$$" in plain:
            self.formula = "$$"
        elif "\\[" in escapes:
            self.formula = "\\]"
        self._others = (
            "`" in plain
            or "\\(" in escapes
            or _open_brackets(plain) > 0
            or _OPEN_LINK_TARGET.search(plain) is not None
            or _OPEN_INLINE_FORMULA.search(plain) is not None
        )


def _open_brackets(text: str) -> int:
    depth = 0
    for bracket in _BRACKET.findall(text):
        depth = depth + 1 if bracket == "[" else max(depth - 1, 0)
    return depth


@functools.cache
def _parser() -> MarkdownIt:
    return build_parser()
