"""Split a command into words as bash would, without running anything.

POSIX quoting (Shell Command Language, 2.2) and `$'...'`, which browsers write. A `$NAME` becomes a reference
that is resolved when the request is sent. `windows_words` does the same for cmd and PowerShell.
"""

import re
from typing import Final, NamedTuple

from proxy.settings.interpolation import is_text

OPEN, CLOSE = "\ue000", "\ue001"
"""Private-use characters around the name of a shell variable; other text must not contain them."""
REFERENCE: Final = re.compile(f"{OPEN}([A-Za-z_][A-Za-z0-9_]*){CLOSE}")

_NAME = r"(?:(?P<{0}>[A-Za-z_][A-Za-z0-9_]*)|\{{(?P<{0}_braced>[A-Za-z_][A-Za-z0-9_]*)\}})"
_PART: Final = re.compile(
    r"(?P<blank>(?:\s|\\\r?\n)+)"
    r"|(?P<comment>(?<!\S)\#[^\n]*)"
    r"|\$'(?P<ansi>(?:\\.|[^'\\])*)'"
    r"|'(?P<single>[^']*)'"
    r'|\$?"(?P<double>(?:\\.|[^"\\])*)"'
    rf"|\${_NAME.format('variable')}"
    r"|\\(?![ \t]+\r?\n)(?P<escaped>.)"
    r"|(?P<ending>\||;|&&|\)|(?:(?<!\S)\d+)?(?P<redirection>[<>]))"
    r"|(?P<plain>\$(?![(\[{'\"0-9$?!@#*-])|[^\s'\"\\$|&;<>()`])",
    re.DOTALL,
)
_IN_DOUBLE: Final = re.compile(
    rf"\\\r?\n|\\(?P<escaped>[\"\\$`])|\${_NAME.format('variable')}|(?P<rejected>\$[(\[{{0-9$?!@#*-]|`)",
    re.DOTALL,
)
_ANSI: Final = re.compile(
    r"\\(?:(?P<bytes>(?:x[0-9A-Fa-f]{1,2}|[0-7]{1,3})(?:\\x[0-9A-Fa-f]{1,2}|\\[0-7]{1,3})*)"
    r"|u(?P<u>[0-9A-Fa-f]{1,4})|U(?P<U>[0-9A-Fa-f]{1,8})|c(?P<control>.)|(?P<letter>.))",
    re.DOTALL,
)
_SHELL_VALUE: Final = re.compile(r"\$[0-9$?!@#*-]")
_LETTERS: Final = {"a": 7, "b": 8, "e": 27, "E": 27, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_CONTINUED: Final = re.compile(r"\\\r?\n")
_REDIRECTED: Final = re.compile(
    r"""(?:<<<?-?|<>|>>|>\||[<>])(?:&[\d-]|[ \t]*(?:"[^"\n]*"|'[^'\n]*'|[^\s|;&<>()'"`^]+))"""
    r"(?:[ \t]|[\\`^]\r?\n)*(?:\Z|[|;&)\n\r#\"]|[\d*]?[<>])"
)
"""A redirection up to the next sign, which ends the command or redirects more."""
_ASSIGNED: Final = re.compile(r"\s*(?:export\s+)?[A-Za-z_]\w*=\"?\$\(\s*")


class CurlLineError(Exception):
    """The command cannot be converted. The message contains no text of it except names of options."""


class UnfinishedLine(CurlLineError):
    """A quote is not closed, or the next line is missing."""


class ComputedLine(CurlLineError):
    """The command computes a value when it runs, such as a signature."""

    def __init__(self) -> None:
        super().__init__(
            "the line computes a value ($(...), `...`, ${...} with an operator, or a command "
            "before curl), but recipe runs nothing"
        )


class ShellWords(NamedTuple):
    """The words of a command. Shell variables are between `OPEN` and `CLOSE`."""

    words: list[str]
    left_out: bool
    """Whether there is more after the command: a pipe, a redirection or a second command."""


def check_characters(line: str) -> None:
    """Check that a line is text without the characters that mark references.

    Raises:
        CurlLineError: It is not.
    """
    if OPEN in line or CLOSE in line or "\0" in line or not is_text(line):
        raise CurlLineError(
            "the line contains characters that cannot occur in a command line: copy it again as text"
        )


def check_redirection(rest: str) -> None:
    """Check that a redirection ends its command, because words after it would be lost.

    Args:
        rest: The command from `<` or `>` on.

    Raises:
        CurlLineError: More words follow.
    """
    if not _REDIRECTED.match(rest):
        raise CurlLineError("the words after a redirection are not read: put < and > at the end of the line")


def split_words(line: str) -> ShellWords:
    """Split a command; `TOKEN=$(...)` around it is removed.

    Raises:
        CurlLineError: A quote is not closed, there is a command substitution, or the text is not valid.
    """
    check_characters(line)
    assigned = _ASSIGNED.match(line)
    at = assigned.end() if assigned else 0
    words: list[str] = []
    word: str | None = None
    while at < len(line):
        part = _PART.match(line, at)
        if part is None:
            raise _rejection(line, at)
        if part["redirection"] is not None:
            check_redirection(line[part.start("redirection") :])
        if part["ending"] is not None:
            rest = line[part.end() :].strip(' \n"')
            return ShellWords(_with(words, word), bool(rest) or part["ending"] not in {")", ";"})
        at = part.end()
        if part["blank"] is None and part["comment"] is None:
            word = (word or "") + _text(part)
        elif word is not None and _CONTINUED.sub("", part[0]):
            words.append(word)
            word = None
    return ShellWords(_with(words, word), left_out=False)


def _with(words: list[str], word: str | None) -> list[str]:
    return words if word is None else [*words, word]


def _rejection(line: str, at: int) -> CurlLineError:
    character = line[at]
    if _SHELL_VALUE.match(line, at):
        return CurlLineError("$1, $$ and similar are values of the shell: put the text in single quotes")
    if character in "'\"" or line[at : at + 2] in {"$'", '$"'}:
        return UnfinishedLine("a quote is not closed")
    if re.match(r"\\[ \t]+\r?\n", line[at:]):
        return CurlLineError("a space follows the backslash at the end of a line: remove the space")
    if character == "\\":
        return UnfinishedLine("the line ends with a backslash, but there is no next line")
    if character == "&":
        return CurlLineError("an & outside of quotes ends a command: put the URL in quotes")
    if character in "()":
        return CurlLineError("there is a parenthesis outside of quotes: put the text in quotes")
    return ComputedLine()


def _text(part: re.Match[str]) -> str:
    """Return the text of a piece of a word."""
    variable = part["variable"] or part["variable_braced"]
    if variable:
        return OPEN + variable + CLOSE
    if part["ansi"] is not None:
        return _ansi(part["ansi"])
    if part["escaped"] is not None and part["escaped"].isalnum():
        raise CurlLineError(
            "a backslash before a letter disappears outside of quotes: put the text in quotes"
        )
    if part["double"] is not None:
        return _IN_DOUBLE.sub(_double, part["double"])
    plain = (part[name] for name in ("single", "escaped", "plain"))
    return next(text for text in plain if text is not None)


def _double(match: re.Match[str]) -> str:
    if match["rejected"]:
        raise _rejection(match["rejected"], 0)
    variable = match["variable"] or match["variable_braced"]
    return OPEN + variable + CLOSE if variable else match["escaped"] or ""


def _ansi(text: str) -> str:
    """Resolve the escapes of `$'...'` (Bash manual, 3.1.2.4), including UTF-16 surrogate pairs."""
    units = _ANSI.sub(_ansi_character, text)
    return join_halves("\0" if OPEN in units or CLOSE in units else units)


def join_halves(text: str) -> str:
    """Join the halves of characters, which some escapes write one by one (UTF-16).

    Raises:
        CurlLineError: There is a NUL, which stands for an invalid escape, or one half of a character.
    """
    try:
        plain = text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeError:
        plain = "\0"
    if "\0" in plain:
        raise CurlLineError("the line contains an invalid escape: copy it again")
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
    """Decode UTF-8 like a shell, or else Latin-1, which browsers write."""
    codes = [int(code[1:], 16) if code[0] == "x" else int(code, 8) for code in escapes.split("\\")[1:]]
    octets = bytes(code & 0xFF for code in codes)
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")
