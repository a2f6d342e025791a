"""Code with a class for every kind of token, by Pygments.

Only languages named here are coloured: a lexer is a pile of regular expressions, and these were tried on
texts made to hurt (tests/chat/test_code_colours.py). Nothing is guessed.
"""

import re
from dataclasses import dataclass
from html import escape
from typing import Final

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

COLOURED_CHARS_MAX: Final = 20_000
LANGUAGE_CHARS_MAX: Final = 30

_LANGUAGE: Final = re.compile(r"[\w+#.-]{1,30}", re.ASCII)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LANGUAGES: Final = _words(
    """
    bash bat c c# c++ clojure cmake console cpp cs csharp css dart diff docker dockerfile elixir erlang
    fortran go golang graphql groovy haskell hs html http ini java javascript js json julia kotlin latex
    less lua make makefile matlab nginx objective-c objectivec ocaml perl php powershell proto protobuf
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
    if label not in LANGUAGES or len(code) > COLOURED_CHARS_MAX:
        return ColouredCode(escape(code), label)
    lexer = get_lexer_by_name(label, stripnl=False, ensurenl=False)
    return ColouredCode(highlight(code, lexer, HtmlFormatter(nowrap=True)), label)
