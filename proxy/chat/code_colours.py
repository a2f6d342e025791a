"""Syntax highlighting by Pygments: code as HTML, and the style sheet for it.

Only the languages named here are highlighted: lexers consist of regular expressions, and these were tested
with hostile input (tests/chat/test_code_colours.py). The language is never guessed.

Each type of token has one of a few roles, and each role has a colour for light and for dark pages. A page can
override them with `--code-keyword` and so on. The contrast on the two backgrounds is at least 7:1.
`proxy/chat/page/code.css` contains the output of `code_styles`:

    python -c "from proxy.chat.code_colours import *; print(code_styles(), end='')" > proxy/chat/page/code.css
"""

import re
from html import escape, unescape
from typing import Final

import msgspec
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

COLOURED_CHARS_MAX: Final = 12_000
LINE_CHARS_MAX: Final = 1_000
"""Many rules search a whole line again from each of its characters."""
BLANKS_MAX: Final = 200
WORDS_MAX: Final = 150
"""Consecutive words separated only by blanks: the rule for Java methods searches them again from each."""

ROLES: Final[dict[str, tuple[str, str, str]]] = {
    "keyword": ("#6a2a86", "#d9b3f0", "k kc kd kn kp kr kt ow nt"),
    "string": ("#0e5637", "#a5d6b0", "s s1 s2 sa sb sc sd se sh si sr ss sx dl gi"),
    "comment": ("#475153", "#b6c2c3", "c c1 ch cm cp cpf cs gp go"),
    "number": ("#7a3a06", "#efbf8f", "m mb mf mh mi il mo no ld"),
    "name": ("#174a86", "#a6cdf7", "nf fm nc nd nn na nb bp ne ni nl nx gh gu"),
    "error": ("#861c1a", "#ffb3ab", "gd gr gt"),
}
"""For each role, its colour on light and dark pages, and Pygments' short names of its tokens."""

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


class ColouredCode(msgspec.Struct, frozen=True):
    """Code as HTML.

    Args:
        html: The escaped code, with `<span class="...">` around tokens.
        language: The language as part of a class name, or "".
    """

    html: str
    language: str


def colour_code(code: str, language: str) -> ColouredCode:
    """Highlight code. Code in an unknown language, or that is too long, is only escaped.

    Args:
        code: The source code.
        language: The first word of a fence's info string.
    """
    found = _LANGUAGE.fullmatch(language)
    label = language.lower() if found else ""
    if label not in LANGUAGES or not _is_cheap_to_colour(code):
        return ColouredCode(escape(code), label)
    lexer = get_lexer_by_name(label, stripnl=False, ensurenl=False)
    html = highlight(code, lexer, HtmlFormatter(nowrap=True))
    html = html if code.endswith("\n") else html.removesuffix("\n")
    # A lexer may drop unexpected text, as that of shell sessions does: then the code is not highlighted.
    return ColouredCode(html if unescape(_SPAN.sub("", html)) == code else escape(code), label)


def _is_cheap_to_colour(code: str) -> bool:
    """Return whether lexers take linear time for this code."""
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


def code_styles() -> str:
    """Return the style sheet, for pages that follow the system's theme and for pages that set their own."""
    light = "".join(f"  --code-of-{role}: {colour};\n" for role, (colour, _, _) in ROLES.items())
    dark = "".join(f"  --code-of-{role}: {colour};\n" for role, (_, colour, _) in ROLES.items())
    system = f":root:not([data-theme=light]) {{\n{dark}}}"
    nested = "".join(f"  {line}\n" for line in system.splitlines())
    rules = "".join(
        f"pre code :is({', '.join('.' + name for name in names.split())}) "
        f"{{\n  color: var(--code-{role}, var(--code-of-{role}));\n}}\n\n"
        for role, (_, _, names) in ROLES.items()
    )
    return (
        "/* Generated: see proxy/chat/code_colours.py. */\n\n"
        f":root,\n:host {{\n{light}}}\n\n"
        f"@media (prefers-color-scheme: dark) {{\n{nested}}}\n\n"
        f":root[data-theme=dark] {{\n{dark}}}\n\n"
        f"{rules}"
        "pre code :is(.c, .c1, .ch, .cm, .cs, .ge) {\n  font-style: italic;\n}\n\n"
        "pre code :is(.gh, .gu, .gs) {\n  font-weight: 600;\n}\n"
    )
