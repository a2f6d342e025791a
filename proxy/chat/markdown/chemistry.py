r"""Chemical formulas and equations, `\ce{2H2 + O2 -> 2H2O}` and `\pu{5 m/s}`, as plain LaTeX.

The notation is that of the LaTeX package mhchem: https://ctan.org/pkg/mhchem. This is the part of it that
language models write. A formula with anything else stays as it is, and is then shown as code.
"""

import re
from typing import Final

_OPENING: Final = re.compile(r"\\(ce|pu)\s*\{")
_BRACE: Final = re.compile(r"\\.|[{}]", re.DOTALL)
_ARROWS: Final = {
    "->": (r"\longrightarrow", r"\xrightarrow"),
    "<-": (r"\longleftarrow", r"\xleftarrow"),
    "<->": (r"\longleftrightarrow", r"\xleftrightarrow"),
    "<=>": (r"\rightleftharpoons", r"\xrightleftharpoons"),
}
"""Each arrow without and with text above or below it."""
_TOKEN: Final = re.compile(
    r"""
    (?P<arrow><=>|<->|->|<-)(?:\[(?P<above>[^\[\]]*)\])?(?:\[(?P<below>[^\[\]]*)\])?
    | (?P<gas>(?<![^\s])(?:\^|\(\^\))(?![^\s]))
    | (?P<solid>(?<![^\s])v(?![^\s]))
    | (?P<plus>(?<![^\s])[+](?![^\s]))
    | (?P<script>[_^])(?:\{(?P<group>[^{}]*)\}|(?P<short>\d*[+-]|\d+|[A-Za-z]))
    | (?P<charge>(?<=[A-Za-z0-9)\]])[+-](?![A-Za-z0-9(]))
    | (?P<number>\d+(?:[./]\d+)?)
    | (?P<letters>[A-Za-z]+)
    | (?P<command>\\[A-Za-z]+)
    | (?P<bond>[-=\#])
    | (?P<dot>[*.])
    | (?P<bracket>[()\[\],]|\\[{}])
    | (?P<blank>\s+)
    """,
    re.VERBOSE,
)
_BONDS: Final = {"-": "{-}", "=": "{=}", "#": r"{\equiv}"}
_FIXED: Final = {"gas": r"\uparrow ", "solid": r"\downarrow ", "plus": "+", "dot": r"\cdot ", "blank": ""}
_BEFORE_NUMBER: Final = frozenset({"", "arrow", "plus", "dot", "blank"})
"""A number after one of these counts molecules; any other counts atoms."""


def write_chemistry(latex: str) -> str:
    r"""Replace each `\ce{...}` and `\pu{...}` that can be read."""
    parts, done = [], 0
    for opening in _OPENING.finditer(latex):
        if opening.start() < done:
            continue
        end = _closing_brace(latex, opening.end())
        if end < 0:
            break
        content = latex[opening.end() : end]
        written = rf"\text{{{content}}}" if opening[1] == "pu" else _write(content)
        if written is not None:
            parts += [latex[done : opening.start()], f"{{{written}}}"]
            done = end + 1
    return "".join([*parts, latex[done:]])


def _closing_brace(latex: str, start: int) -> int:
    depth = 1
    for found in _BRACE.finditer(latex, start):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.start()
    return -1


def _write(content: str) -> str | None:
    """Return an equation as LaTeX, or None if it is not understood."""
    parts, position, before = [], 0, ""
    while position < len(content):
        token = _TOKEN.match(content, position)
        if token is None:
            return None
        kind = token.lastgroup or ""
        kind = {"above": "arrow", "below": "arrow", "group": "script", "short": "script"}.get(kind, kind)
        written = _write_token(token, kind, before)
        if written is None:
            return None
        parts.append(written)
        position, before = token.end(), kind
    return "".join(parts)


def _write_token(token: re.Match[str], kind: str, before: str) -> str | None:
    if kind in _FIXED:
        return _FIXED[kind]
    match kind:
        case "arrow":
            above, below = (_write(token[name] or "") for name in ("above", "below"))
            if above is None or below is None:
                return None
            plain, labelled = _ARROWS[token["arrow"]]
            return f"{labelled}[{below}]{{{above}}}" if above or below else f"{plain} "
        case "number":
            return rf"{token[0]}\," if before in _BEFORE_NUMBER else f"_{{{token[0]}}}"
        case "letters":
            return rf"\mathrm{{{token[0]}}}"
        case "script":
            base = "{}" if before in _BEFORE_NUMBER else ""
            return rf"{base}{token['script']}{{{_upright(token['group'] or token['short'] or '')}}}"
        case "charge":
            return f"^{{{token[0]}}}"
        case "bond":
            return _BONDS[token[0]]
    return f"{token[0]} "


def _upright(script: str) -> str:
    return re.sub(r"[A-Za-z]+", lambda letters: rf"\mathrm{{{letters[0]}}}", script)
