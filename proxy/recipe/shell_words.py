"""Split a command into words as bash, cmd or PowerShell would, without running anything.

bash: POSIX quoting (Shell Command Language, 2.2) and `$'...'`, which browsers write. A `$NAME` becomes a
reference that is resolved when the request is sent. cmd:
https://learn.microsoft.com/cpp/c-language/parsing-c-command-line-arguments, after `^` is removed.
PowerShell: about_Quoting_Rules and about_Special_Characters in its documentation.
"""

import json
import re
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import urlencode

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
    r"|\\(?P<escaped>.)"
    r"|(?P<ending>\||;|&&|\)|(?:(?<!\S)\d+)?[<>])"
    r"|(?P<plain>\$(?![({'\"])|[^\s'\"\\$|&;<>()`])",
    re.DOTALL,
)
_IN_DOUBLE: Final = re.compile(
    rf"\\\r?\n|\\(?P<escaped>[\"\\$`])|\${_NAME.format('variable')}|(?P<rejected>\$[({{]|`)", re.DOTALL
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


def split_words(line: str) -> ShellWords:
    """Split a command; `TOKEN=$(...)` around it is removed.

    Raises:
        CurlLineError: A quote is not closed, there is a command substitution, or the text is not valid.
    """
    if OPEN in line or CLOSE in line or "\0" in line or not is_text(line):
        raise CurlLineError(
            "the line contains characters that cannot occur in a command line: copy it again as text"
        )
    assigned = _ASSIGNED.match(line)
    at = assigned.end() if assigned else 0
    words: list[str] = []
    word: str | None = None
    while at < len(line):
        part = _PART.match(line, at)
        if part is None:
            raise _rejection(line, at)
        if part["ending"] is not None:
            rest = line[part.end() :].strip(' \n"')
            return ShellWords(_with(words, word), bool(rest) or part["ending"] not in {")", ";"})
        at = part.end()
        if part["blank"] is None and part["comment"] is None:
            word = (word or "") + _text(part)
        elif _CONTINUED.sub("", part[0]):
            words, word = _with(words, word), None
    return ShellWords(_with(words, word), left_out=False)


def _with(words: list[str], word: str | None) -> list[str]:
    return words if word is None else [*words, word]


def _rejection(line: str, at: int) -> CurlLineError:
    character = line[at]
    if character in "'\"" or line[at : at + 2] in {"$'", '$"'}:
        return UnfinishedLine("a quote is not closed")
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
    if part["double"] is not None:
        return _IN_DOUBLE.sub(_double, part["double"])
    plain = (part[name] for name in ("single", "escaped", "plain"))
    return next(text for text in plain if text is not None)


def _double(match: re.Match[str]) -> str:
    if match["rejected"]:
        raise _rejection("`", 0)
    variable = match["variable"] or match["variable_braced"]
    return OPEN + variable + CLOSE if variable else match["escaped"] or ""


def _ansi(text: str) -> str:
    """Resolve the escapes of `$'...'` (Bash manual, 3.1.2.4), including UTF-16 surrogate pairs."""
    units = _ANSI.sub(_ansi_character, text)
    try:
        plain = units.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeError:
        plain = "\0"
    if "\0" in plain or OPEN in plain or CLOSE in plain:
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


# --- Windows

_CMD: Final = re.compile(r'[^\'"]*\^"|(?:[^\'"]|"[^"\n]*")*\^[ \t]*\r?\n')
"""Matches a command in which a `^` precedes the first quote or ends a line."""
_CARET: Final = re.compile(r"\^(\r?\n\s*|.)", re.DOTALL)
_INVOKE: Final = re.compile(r"\b(?:Invoke-WebRequest|Invoke-RestMethod|iwr|irm)\b", re.IGNORECASE)
_PS_CONTINUED: Final = re.compile(r"`[ \t]*\r?\n")
_PS_PART: Final = re.compile(
    r"(?P<blank>(?:[ \t]|`[ \t]*\r?\n)+)"
    r"|(?P<mark>@\{|[{}=;()|]|\r?\n)"
    r"|'(?P<single>(?:''|[^'])*)'"
    r'|"(?P<double>(?:`.|""|[^"`])*)"'
    r"|(?P<plain>(?:`.|[^\s'\"`{}=;()|])+)",
    re.DOTALL,
)
_PS_IN_DOUBLE: Final = re.compile(
    r"`(?P<escaped>.)|(?P<twice>\"\")|(?P<computed>\$\()|\$\{?(?:env:)?(?P<name>[A-Za-z_]\w*)\}?", re.DOTALL
)
_PS_JSON: Final = re.compile(r"""(?<!\S)'\s*[{\[]\s*\\\"""")
"""JSON whose quotes PowerShell 5 would drop without a backslash; in bash it would not be JSON."""
_PS_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}
_PS_PARAMETERS: Final = {"uri": "--url", "method": "-X", "useragent": "-A", "timeoutsec": "-m", "proxy": "-x"}


def windows_words(line: str) -> list[str] | None:
    """Return the words of an equivalent curl command; None if the command is not written for Windows.

    Raises:
        CurlLineError: It is written for Windows, but cannot be parsed.
    """
    if _INVOKE.search(line):
        return _ps_invocation(line)
    if _PS_CONTINUED.search(line) or _PS_JSON.search(line):
        return [text.replace('\\"', '"') for kind, text in _ps_parts(line) if kind == "text"]
    return _cmd_words(line) if _CMD.match(line) else None


def _cmd_words(line: str) -> list[str]:
    text = _CARET.sub(lambda found: " " if found[1].startswith(("\r", "\n")) else found[1], line)
    words: list[str] = []
    word, quoted, at = "", False, 0
    in_word = False
    while at < len(text):
        character = text[at]
        backslashes = len(text) - at - len(text[at:].lstrip("\\")) if character == "\\" else 0
        if backslashes and text[at + backslashes : at + backslashes + 1] == '"':
            word, in_word = word + "\\" * (backslashes // 2), True
            at += backslashes
            if backslashes % 2:
                word, at = f'{word}"', at + 1
            continue
        if character == '"':
            quoted, in_word = not quoted, True
        elif character.isspace() and not quoted:
            if in_word:
                words.append(word)
            word, in_word = "", False
        else:
            word, in_word = word + character, True
        at += 1
    if quoted:
        raise UnfinishedLine("a quote is not closed")
    return [*words, word] if in_word else words


def _ps_invocation(line: str) -> list[str]:
    """Convert `Invoke-WebRequest` and `Invoke-RestMethod` with the parameters that browsers write."""
    begin = _INVOKE.search(line)
    parts = list(_ps_parts(line[begin.end() if begin else 0 :]))
    words, body, is_json = ["curl"], "", "convertto-json" in line.lower()
    at = 0
    while at < len(parts):
        kind, text = parts[at]
        name = text[1:].lower() if kind == "text" and text.startswith("-") else ""
        at += 1
        if not name:
            if "://" in text and "--url" not in words:  # the first positional argument
                words += ["--url", text]
            continue
        while at < len(parts) and parts[at] == ("mark", "("):
            at += 1
        if at < len(parts) and parts[at] == ("mark", "@{"):
            table, at = _ps_table(parts, at + 1)
            if name == "headers":
                words += [word for key, value in table.items() for word in ("-H", f"{key}: {value}")]
            elif name == "body":
                body = json.dumps(table, ensure_ascii=False) if is_json else urlencode(table)
        elif at < len(parts) and parts[at][0] == "text" and not parts[at][1].startswith("-"):
            value, at = parts[at][1], at + 1
            if name in _PS_PARAMETERS:
                words += [_PS_PARAMETERS[name], value]
            elif name == "contenttype":
                words += ["-H", f"Content-Type: {value}"]
            elif name == "body":
                body = value
    return [*words, "--data-raw", body] if body else words


def _ps_table(parts: list[tuple[str, str]], at: int) -> tuple[dict[str, str], int]:
    """Read a hash table up to `}`; return it and the position after it."""
    texts: list[str] = []
    while at < len(parts) and parts[at] != ("mark", "}"):
        if parts[at] == ("mark", "@{"):
            raise CurlLineError("nested tables are not supported: write the body as JSON text")
        if parts[at][0] == "text":
            texts.append(parts[at][1])
        at += 1
    return dict(zip(texts[::2], texts[1::2], strict=False)), at + 1


def _ps_parts(line: str) -> Iterator[tuple[str, str]]:
    """Yield ("text", word) and ("mark", sign) of PowerShell; adjacent pieces form one word."""
    at, word = 0, None
    while at < len(line):
        part = _PS_PART.match(line, at)
        if part is None:
            raise UnfinishedLine("a quote is not closed")
        at = part.end()
        if part["blank"] or part["mark"]:
            if word is not None:
                yield "text", word
            word = None
            if part["mark"]:
                yield "mark", part["mark"]
            continue
        word = (word or "") + _ps_text(part)
    if word is not None:
        yield "text", word


def _ps_text(part: re.Match[str]) -> str:
    if part["single"] is not None:
        return part["single"].replace("''", "'")
    text = part["double"] if part["double"] is not None else part["plain"]
    return _PS_IN_DOUBLE.sub(_ps_resolved, text)


def _ps_resolved(found: re.Match[str]) -> str:
    if found["computed"]:
        raise ComputedLine
    if found["name"]:
        return OPEN + found["name"] + CLOSE
    return _PS_ESCAPES.get(found["escaped"], found["escaped"]) if found["escaped"] else '"'
