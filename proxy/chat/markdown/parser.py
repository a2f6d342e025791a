"""CommonMark with tables, strikethrough, task lists, formulas and highlighted code, by markdown-it.

Disabled: HTML, which is shown as text; indented code, because a piece of a nested list begins with blanks;
setext headings, whose underline is in another piece; and link definitions, which would disappear. Images
become links, so that the page fetches nothing.
"""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from mdit_py_plugins.tasklists import tasklists_plugin

from proxy.chat.code_colours import colour_code
from proxy.chat.markdown.emphasis import emphasis
from proxy.chat.markdown.formulas import BLOCK, DISPLAY, INLINE, formula_block, formula_inline, to_mathml

SCHEMES: Final = frozenset({"http", "https", "mailto"})
ADDRESS_CHARS_MAX: Final = 2_000
NESTING_MAX: Final = 20

_ALIGNED: Final = re.compile(r"text-align:(left|center|right)")
_Tokens = Sequence[Token]


class Rendered(msgspec.Struct, frozen=True):
    """HTML that is not sanitised yet.

    Args:
        html: One or more blocks.
        plain: Whether it is a single paragraph.
    """

    html: str
    plain: bool


def build_parser() -> MarkdownIt:
    """Return a parser, which has no state between texts."""
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": NESTING_MAX})
    parser.enable(["table", "strikethrough"])
    parser.disable(["code", "lheading", "reference", "html_block", "html_inline"])
    parser.inline.ruler.at("emphasis", emphasis)
    parser.inline.ruler.before("escape", "formula", formula_inline)
    parser.block.ruler.before("fence", "formula", formula_block, {"alt": ["paragraph", "blockquote", "list"]})
    parser.use(tasklists_plugin)
    parser.core.ruler.push("sides", _name_sides)
    parser.validateLink = is_safe_address  # type: ignore[assignment,method-assign]  # our own rule
    for name, rule in (
        ("fence", _fence),
        ("image", _image),
        (INLINE, _formula),
        (DISPLAY, _display),
        (BLOCK, _display_block),
    ):
        parser.add_render_rule(name, rule)
    return parser


def render_markdown(parser: MarkdownIt, text: str) -> Rendered:
    """Render a text."""
    env: EnvType = {}
    tokens = parser.parse(text, env)
    plain = len(tokens) == 3 and tokens[0].type == "paragraph_open"
    return Rendered(str(parser.renderer.render(tokens, parser.options, env)).rstrip("\n"), plain)


def is_safe_address(address: str) -> bool:
    """Return whether a link may have this address: an absolute one, and not a script."""
    if len(address) > ADDRESS_CHARS_MAX:
        return False
    try:
        parts = urlsplit(address)
        return parts.scheme.lower() in SCHEMES and (parts.scheme.lower() == "mailto" or bool(parts.hostname))
    except ValueError:
        return False


def _name_sides(state: StateCore) -> None:
    """Replace the alignment style of table cells by a class, because the sanitiser removes styles."""
    for token in state.tokens:
        if token.type in {"th_open", "td_open"}:
            side = _ALIGNED.search(str(token.attrs.pop("style", "")))
            if side is not None and side[1] != "left":
                token.attrSet("class", f"to-{side[1]}")


def _fence(_self: RendererHTML, tokens: _Tokens, place: int, _options: OptionsDict, _env: EnvType) -> str:
    token = tokens[place]
    language, _, _ = token.info.strip().partition(" ")
    coloured = colour_code(token.content, language)
    label = f' class="language-{escapeHtml(coloured.language)}"' if coloured.language else ""
    return f"<pre><code{label}>{coloured.html}</code></pre>\n"


def _image(self: RendererHTML, tokens: _Tokens, place: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[place]
    words = escapeHtml(self.renderInlineAsText(token.children, options, env) or str(token.attrs["src"]))
    return f'<a href="{escapeHtml(str(token.attrs["src"]))}">{words}</a>'


def _formula(_self: RendererHTML, tokens: _Tokens, place: int, _options: OptionsDict, _env: EnvType) -> str:
    token = tokens[place]
    return to_mathml(token.content, display=False) or f"<code>{escapeHtml(token.content)}</code>"


def _display(_self: RendererHTML, tokens: _Tokens, place: int, _options: OptionsDict, _env: EnvType) -> str:
    token = tokens[place]
    return to_mathml(token.content, display=True) or f"<code>{escapeHtml(token.content)}</code>"


def _display_block(
    _self: RendererHTML, tokens: _Tokens, place: int, _options: OptionsDict, _env: EnvType
) -> str:
    token = tokens[place]
    formula = to_mathml(token.content, display=True)
    return f"<p>{formula}</p>\n" if formula else f"<pre><code>{escapeHtml(token.content)}</code></pre>\n"
