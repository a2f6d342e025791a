"""Split one command line into words, as bash reads it; nothing is run.

Quoting is POSIX's (Shell Command Language, 2.2) with bash's `$'...'`, which browsers write. A `$NAME` stays
what it is: a reference, to be resolved where the request is sent.
"""

import re
from typing import Final, NamedTuple

OPEN, CLOSE = "\ue000", "\ue001"
"""Private-use characters around the name of a shell variable inside a word: no text holds them otherwise."""
REFERENCE: Final = re.compile(f"{OPEN}([A-Za-z_][A-Za-z0-9_]*){CLOSE}")

_NAME = r"(?:(?P<{0}>[A-Za-z_][A-Za-z0-9_]*)|\{{(?P<{0}_braced>[A-Za-z_][A-Za-z0-9_]*)\}})"
_PART: Final = re.compile(
    r"(?P<blank>(?:\s|\\\r?\n)+)"
    r"|(?P<comment>(?<!\S)\#[^\n]*)"
    r"|\$'(?P<ansi>(?:\\.|[^'\\])*)'"
    r"|'(?P<single>[^']*)'"
    r'|\$?"(?P<double>(?:\\.|[^"\\])*)"'
    rf"|\${_NAME.format('variable')}"
    r"|\\(?P<escaped>.)"
    r"|(?P<ending>\||;|&&|\)|(?:(?<!\S)\d+)?[<>])"
    r"|(?P<plain>\$(?![({'\"])|[^\s'\"\\$|&;<>()`])",
    re.DOTALL,
)
_IN_DOUBLE: Final = re.compile(
    rf"\\\r?\n|\\(?P<escaped>[\"\\$`])|\${_NAME.format('variable')}|(?P<refused>\$[({{]|`)", re.DOTALL
)
_ANSI: Final = re.compile(
    r"\\(?:(?P<bytes>(?:x[0-9A-Fa-f]{1,2}|[0-7]{1,3})(?:\\x[0-9A-Fa-f]{1,2}|\\[0-7]{1,3})*)"
    r"|u(?P<u>[0-9A-Fa-f]{1,4})|U(?P<U>[0-9A-Fa-f]{1,8})|c(?P<control>.)|(?P<letter>.))",
    re.DOTALL,
)
_LETTERS: Final = {"a": 7, "b": 8, "e": 27, "E": 27, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_CONTINUED: Final = re.compile(r"\\\r?\n")
_ASSIGNED: Final = re.compile(r"\s*(?:export\s+)?[A-Za-z_]\w*=\"?\$\(\s*")


class CurlLineError(Exception):
    """No recipe can be made of the line. The words hold nothing of it but names of options."""


class UnfinishedLine(CurlLineError):
    """A quote or a continued line that has no end yet."""


class ComputedLine(CurlLineError):
    """The line computes something when it runs, such as a signature."""

    def __init__(self) -> None:
        super().__init__(
            "the line computes something when it runs ($(...), `...`, ${...} with an operator, or a command "
            "before curl), and nothing is run here"
        )


class Words(NamedTuple):
    """The words of a command; shell variables stand in them between `OPEN` and `CLOSE`."""

    words: list[str]
    left_out: bool
    """Something follows that is no part of the command: a pipe, a redirection, a second command."""


def split_words(line: str) -> Words:
    """Split a line, `TOKEN=$(...)` around it taken off.

    Raises:
        CurlLineError: a quote without an end, a command substitution, text that is not valid.
    """
    if OPEN in line or CLOSE in line or "\0" in line or not _is_text(line):
        raise CurlLineError("the line holds characters that no command line can: copy it again as text")
    assigned = _ASSIGNED.match(line)
    at = assigned.end() if assigned else 0
    words: list[str] = []
    word: str | None = None
    while at < len(line):
        part = _PART.match(line, at)
        if part is None:
            raise _refusal(line, at)
        if part["ending"] is not None:
            rest = line[part.end() :].strip(' \n"')
            return Words(_with(words, word), bool(rest) or part["ending"] not in {")", ";"})
        at = part.end()
        if part["blank"] is None and part["comment"] is None:
            word = (word or "") + _text(part)
        elif _CONTINUED.sub("", part[0]):
            words, word = _with(words, word), None
    return Words(_with(words, word), left_out=False)


def _with(words: list[str], word: str | None) -> list[str]:
    return words if word is None else [*words, word]


def _refusal(line: str, at: int) -> CurlLineError:
    character = line[at]
    if character in "'\"" or line[at : at + 2] in {"$'", '$"'}:
        return UnfinishedLine("a quote in the line has no end")
    if character == "\\":
        return UnfinishedLine("the line ends in a backslash: its next line is missing")
    if character == "&":
        return CurlLineError("an & outside of quotes ends a command: put the URL in quotes")
    if character in "()":
        return CurlLineError("a parenthesis outside of quotes: put the text in quotes")
    return ComputedLine()


def _text(part: re.Match[str]) -> str:
    """What one piece of a word says."""
    variable = part["variable"] or part["variable_braced"]
    if variable:
        return OPEN + variable + CLOSE
    if part["ansi"] is not None:
        return _ansi(part["ansi"])
    if part["double"] is not None:
        return _IN_DOUBLE.sub(_double, part["double"])
    plain = (part[name] for name in ("single", "escaped", "plain"))
    return next(text for text in plain if text is not None)


def _double(match: re.Match[str]) -> str:
    if match["refused"]:
        raise _refusal("`", 0)
    variable = match["variable"] or match["variable_braced"]
    return OPEN + variable + CLOSE if variable else match["escaped"] or ""


def _ansi(text: str) -> str:
    """Resolve the escapes of `$'...'` (Bash manual, 3.1.2.4); browsers write UTF-16 halves as two of them."""
    units = _ANSI.sub(_ansi_character, text)
    try:
        plain = units.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeError:
        plain = "\0"
    if "\0" in plain or OPEN in plain or CLOSE in plain:
        raise CurlLineError("the line holds an escape that stands for no character: copy it again")
    return plain


def _ansi_character(match: re.Match[str]) -> str:
    if match["bytes"]:
        return _from_bytes(match[0])
    code = match["u"] or match["U"]
    if code:
        number = int(code, 16)
        return chr(number) if number <= 0x10FFFF else "\0"
    if match["control"]:
        return chr(ord(match["control"]) & 0x1F)
    letter = str(match["letter"])
    if letter in _LETTERS:
        return chr(_LETTERS[letter])
    return letter if letter in "\\'\"?" else f"\\{letter}"


def _from_bytes(escapes: str) -> str:
    """Bytes are UTF-8 as in a shell; what is not, is a character below 256 as browsers mean it."""
    codes = [int(code[1:], 16) if code[0] == "x" else int(code, 8) for code in escapes.split("\\")[1:]]
    octets = bytes(code & 0xFF for code in codes)
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def _is_text(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True
