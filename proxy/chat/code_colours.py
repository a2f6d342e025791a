"""Code with a class for every kind of token, by Pygments.

Only languages named here are coloured: a lexer is a pile of regular expressions, and these were tried on
texts made to hurt (tests/chat/test_code_colours.py). Nothing is guessed.
"""

import re
from dataclasses import dataclass
from html import escape, unescape
from typing import Final

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

COLOURED_CHARS_MAX: Final = 12_000
LINE_CHARS_MAX: Final = 1_000
"""Many rules try a whole line again from each of its characters."""
BLANKS_MAX: Final = 200
WORDS_MAX: Final = 150
"""In a row, with nothing but blanks between them: the rule for Java's methods tries them all from each."""

_LANGUAGE: Final = re.compile(r"[\w+#.-]{1,30}", re.ASCII)
_BLANKS: Final = re.compile(r"\s{%d}" % BLANKS_MAX)  # noqa: UP031  braces are the expression's own
_SPAN: Final = re.compile(r'<span class="\w+">|</span>')
_WORD: Final = re.compile(r"[\w.$<>\[\]?,&*]+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LANGUAGES: Final = _words(
    """
    bash bat c c# c++ clojure cmake console cpp cs csharp css dart diff docker dockerfile elixir erlang
    fortran go golang graphql groovy haskell hs html http ini java javascript js json julia kotlin latex
    less lua  matlab nginx objective-c objectivec ocaml perl php powershell proto protobuf
    ps1 py pycon python python3 r rb ruby rs rust scala scss sh shell shell-session sql swift tex toml ts
    typescript vim xml yaml yml zig zsh
    """
)


@dataclass(frozen=True, slots=True)
class ColouredCode:
    """Code as HTML.

    Args:
        html: Escaped, with `<span class="...">` around tokens.
        language: A label fit for a class name; empty without one.
    """

    html: str
    language: str


def colour_code(code: str, language: str) -> ColouredCode:
    """Colour code; a language that is not known, or code that is long, stays plain.

    Args:
        code: As it was written.
        language: The first word of a fence's info string.
    """
    found = _LANGUAGE.fullmatch(language)
    label = language.lower() if found else ""
    if label not in LANGUAGES or not _is_tame(code):
        return ColouredCode(escape(code), label)
    lexer = get_lexer_by_name(label, stripnl=False, ensurenl=False)
    html = highlight(code, lexer, HtmlFormatter(nowrap=True))
    html = html if code.endswith("\n") else html.removesuffix("\n")
    # A lexer may lose what it does not expect, as that of shell sessions does: then nothing is coloured.
    return ColouredCode(html if unescape(_SPAN.sub("", html)) == code else escape(code), label)


def _is_tame(code: str) -> bool:
    """Whether lexers take a time that grows with the code alone."""
    if len(code) > COLOURED_CHARS_MAX or any(len(line) > LINE_CHARS_MAX for line in code.split("\n")):
        return False
    if _BLANKS.search(code):
        return False
    words = 0
    for word in code.split():
        words = words + 1 if _WORD.fullmatch(word) else 0
        if words > WORDS_MAX:
            return False
    return True
