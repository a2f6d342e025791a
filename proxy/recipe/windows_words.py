"""Split a command into words as cmd or PowerShell would, without running anything.

cmd: https://learn.microsoft.com/cpp/c-language/parsing-c-command-line-arguments, after cmd has resolved
`%NAME%` and `^`. PowerShell: about_Quoting_Rules and about_Special_Characters in its documentation.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import urlencode

from proxy.recipe.shell_words import (
    CLOSE,
    OPEN,
    REFERENCE,
    ComputedLine,
    CurlLineError,
    ShellWords,
    UnfinishedLine,
)

_INVOKE: Final = re.compile(r"\b(?:Invoke-WebRequest|Invoke-RestMethod|iwr|irm)\b", re.IGNORECASE)
_PS_CONTINUED: Final = re.compile(r"`[ \t]*\r?\n")
_PS_ENVIRONMENT: Final = re.compile(r"\$\{?env:[A-Za-z_]", re.IGNORECASE)
_PS_COOKIES: Final = re.compile(r"\.Cookies\.Add\b", re.IGNORECASE)
_PS_JSON: Final = re.compile(r"""(?<!\S)'\s*[{\[]\s*\\\"""")
"""JSON whose quotes PowerShell 5 would drop without a backslash; in bash it would not be JSON."""


def windows_words(line: str) -> ShellWords | None:
    """Return the words of an equivalent curl command; None if the command is not written for Windows.

    Raises:
        CurlLineError: It is written for Windows, but cannot be converted.
    """
    invocation = _INVOKE.search(line)
    if invocation:
        if _PS_COOKIES.search(line):
            raise CurlLineError("the cookies of $session are not read: write them as Cookie in -Headers")
        return _Invocation([*_ps_parts(line[invocation.end() :])]).words()
    if _PS_CONTINUED.search(line) or _PS_JSON.search(line) or _PS_ENVIRONMENT.search(line):
        return _ps_command(line)
    return _cmd_words(line) if _CMD.match(line) or _CMD_VARIABLE.match(line) else None


# --- cmd

_CMD: Final = re.compile(r'[^\'"]*\^"|(?:[^\'"]|"[^"\n]*")*\^[ \t]*\r?\n')
"""Matches a command in which a `^` precedes the first quote or ends a line."""
_PERCENT: Final = re.compile(r"%([A-Za-z_]\w*)%(?![0-9A-Fa-f]{2})", re.ASCII)
"""A variable, unless it could be a part of `%E9t%C3`, which is text in a URL."""
_CMD_VARIABLE: Final = re.compile(r"[^'$\\`%]*%[A-Z_][A-Z0-9_]{2,}%(?![0-9A-Fa-f]{2})")
"""Matches a command that uses a variable of cmd and nothing of another shell."""
_CARET: Final = re.compile(r"\^(\r?\n\s*|.)", re.DOTALL)
_DESCRIPTOR: Final = re.compile(r"(?<=\s)\d\Z")


def _cmd_words(line: str) -> ShellWords:
    text, left_out = _cmd_text(line)
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
    return ShellWords([*words, word] if in_word else words, left_out)


def _cmd_text(line: str) -> tuple[str, bool]:
    """Return what cmd passes to the program, and whether there is more after the command.

    For cmd every quote opens or closes, also one after a backslash, but not one after `^`. Inside of quotes
    `^` is text.
    """
    pieces: list[str] = []
    quoted, at = False, 0
    while at < len(line):
        character = line[at]
        variable = _PERCENT.match(line, at)
        caret = None if quoted else _CARET.match(line, at)
        if variable:
            pieces.append(OPEN + variable[1] + CLOSE)
        elif caret:
            pieces.append(" " if caret[1].startswith(("\r", "\n")) else caret[1])
        elif character in "|&<>" and not quoted:
            return _DESCRIPTOR.sub("", "".join(pieces)), True
        else:
            quoted = quoted != (character == '"')
            pieces.append(character)
        found = variable or caret
        at = found.end() if found else at + 1
    return "".join(pieces), False


# --- PowerShell

_PS_PART: Final = re.compile(
    r"(?P<blank>(?:[ \t]|`[ \t]*\r?\n)+)"
    r"|(?P<mark>@\{|[{}=;()|]|\r?\n)"
    r"|'(?P<single>(?:''|[^'])*)'"
    r'|"(?P<double>(?:`.|""|[^"`])*)"'
    r"|(?P<plain>(?:`.|[^\s'\"`{}=;()|])+)",
    re.DOTALL,
)
_PS_RESOLVED: Final = re.compile(
    r"`(?P<escaped>.)|(?P<twice>\"\")|(?P<computed>\$\(|\$\{?(?!env:)\w+:\w)"
    r"|\$\{?(?:env:)?(?P<name>[A-Za-z_]\w*)\}?",
    re.DOTALL | re.IGNORECASE,
)
_PS_MEMBER: Final = re.compile(r"\$\w+[.\[]")
_PS_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}
_PS_CONSTANTS: Final[dict[str, object]] = {"true": True, "false": False, "null": None}
_PS_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?P<fraction>\.[0-9]{1,17})?")
_PS_PARAMETERS: Final = {"uri": "--url", "method": "-X", "useragent": "-A", "timeoutsec": "-m", "proxy": "-x"}
_PS_SWITCHES: Final = {
    "disablekeepalive": (), "skipcertificatecheck": ("-k",), "usebasicparsing": (), "verbose": (),
}  # fmt: skip
_PS_WITHOUT_EFFECT: Final = frozenset(
    {"erroraction", "maximumredirection", "maximumretrycount", "outfile", "retryintervalsec"}
    | {"sessionvariable", "websession"}
)
"""Parameters whose values change nothing in the request."""
_PS_END: Final = frozenset({"|", ";", ")", "\n", "\r\n"})
_PS_REDIRECTIONS: Final = frozenset({">", ">>", "2>", "2>&1", "*>", "&"})
_PS_IN_WORDS: Final = frozenset({"@{", "{", "}", "="})
"""Marks that are text in the words of other commands."""


class _Part(NamedTuple):
    """A word or a sign of PowerShell."""

    kind: str
    """`text` for a word in quotes or partly so, `bare` for one without, `mark` for a sign."""
    text: str

    @property
    def is_word(self) -> bool:
        return self.kind != "mark"


@dataclass
class _Invocation:
    """What follows `Invoke-WebRequest` or `Invoke-RestMethod`, with the parameters that are known.

    Args:
        parts: The rest of the command.
    """

    parts: list[_Part]
    at: int = 0
    found: list[str] = field(default_factory=lambda: ["curl"])
    method: str = "GET"
    body: str | dict[str, object] = ""

    def words(self) -> ShellWords:
        """Convert the command.

        Raises:
            CurlLineError: A parameter is unknown, or a value is computed.
        """
        while self._next is not None and not self._is_mark(*_PS_END):
            part = self._take()
            if part.kind == "bare" and part.text.startswith("-"):
                self._parameter(part.text[1:])
            elif part.is_word and "--url" not in self.found:  # the first positional argument
                self.found += ["--url", part.text]
            else:
                raise ComputedLine
        left_out = any(part.is_word for part in self.parts[self.at :])
        return ShellWords(self.found + self._body_words(), left_out)

    @property
    def _next(self) -> _Part | None:
        return self.parts[self.at] if self.at < len(self.parts) else None

    def _is_mark(self, *marks: str) -> bool:
        return self._next is not None and self._next.kind == "mark" and self._next.text in marks

    def _take(self) -> _Part:
        part = self._next
        if part is None:
            raise UnfinishedLine("the last parameter has no value")
        self.at += 1
        return part

    def _parameter(self, written: str) -> None:
        name = written.lower()
        if name in _PS_SWITCHES:
            self.found += _PS_SWITCHES[name]
        elif name == "headers":
            table = self._value("")
            if not isinstance(table, dict):
                raise CurlLineError("-headers: write the table here, as @{...}")
            self.found += [word for key, item in table.items() for word in ("-H", f"{key}: {_plain(item)}")]
        elif name == "body":
            self.body = self._value(name)
        elif name in _PS_WITHOUT_EFFECT:
            self._value("")
        elif name in _PS_PARAMETERS or name == "contenttype":
            value = self._value("")
            if not isinstance(value, str):
                raise ComputedLine
            self.method = value.upper() if name == "method" else self.method
            option = _PS_PARAMETERS.get(name)
            self.found += [option, value] if option else ["-H", f"Content-Type: {value}"]
        else:
            raise CurlLineError(f"-{name if name.isalpha() else '...'}: unknown or unsupported")

    def _value(self, literal_for: str) -> str | dict[str, object]:
        """Take the value of a parameter: one word, or a table, which may be converted to JSON in parentheses.

        Args:
            literal_for: The parameter whose value must not be a variable; empty for others.

        Raises:
            CurlLineError: It is computed.
        """
        depth = 0
        while self._is_mark("("):
            self._take()
            depth += 1
        value: str | dict[str, object]
        if self._is_mark("@{"):
            self._take()
            value = self._table()
            if depth and self._is_mark("|"):
                self._take()
                value = self._as_json(value)
        else:
            part = self._take()
            if not part.is_word or (part.kind == "bare" and part.text.startswith("-")):
                raise UnfinishedLine("a parameter has no value")
            if literal_for and REFERENCE.fullmatch(part.text):
                raise CurlLineError(f"-{literal_for}: write the value here instead of a variable")
            value = part.text
        for _ in range(depth):
            if not self._is_mark(")"):
                raise ComputedLine
            self._take()
        return value

    def _as_json(self, table: dict[str, object]) -> str:
        if self._take().text.lower() != "convertto-json":
            raise ComputedLine
        while self._next is not None and self._next.is_word:  # -Compress, -Depth 5
            self._take()
        return json.dumps(table, ensure_ascii=False)

    def _table(self) -> dict[str, object]:
        """Take the rest of a table, up to its `}`."""
        table: dict[str, object] = {}
        while not self._is_mark("}"):
            part = self._take()
            if part.kind == "mark" and part.text in {";", "\n", "\r\n"}:
                continue
            if not part.is_word or not self._is_mark("="):
                raise ComputedLine
            self._take()
            if self._is_mark("@{"):
                raise CurlLineError("nested tables are not supported: write the body as JSON text")
            table[part.text] = _constant(self._take())
            if not self._is_mark(";", "\n", "\r\n", "}"):
                raise ComputedLine
        self._take()
        return table

    def _body_words(self) -> list[str]:
        if not self.body:
            return []
        if isinstance(self.body, dict):
            form = urlencode({key: _plain(value) for key, value in self.body.items()})
            return [*(["-G"] if self.method == "GET" else []), "--data-raw", form]
        if self.method == "GET":
            raise CurlLineError("-method: without it PowerShell sends GET without a body: add -Method Post")
        return ["--data-raw", self.body]


def _constant(part: _Part) -> object:
    """Return the value of an item of a table."""
    if part.kind == "text":
        return part.text
    number = _PS_NUMBER.fullmatch(part.text)
    if number:
        return float(part.text) if number["fraction"] else int(part.text)
    reference = REFERENCE.fullmatch(part.text)
    if part.kind == "mark" or reference is None:
        raise ComputedLine
    return _PS_CONSTANTS.get(reference[1].lower(), part.text)


def _plain(value: object) -> str:
    """Write a value as PowerShell does outside of JSON."""
    return "" if value is None else str(value)


def _ps_command(line: str) -> ShellWords:
    """Return the words of `curl.exe` as PowerShell passes them."""
    words: list[str] = []
    for kind, text in _ps_parts(line, _PS_IN_WORDS):
        if words and ((kind == "mark" and text in _PS_END) or (kind == "bare" and text in _PS_REDIRECTIONS)):
            return ShellWords(words, left_out=True)
        if kind != "mark":
            words.append(text.replace('\\"', '"'))
        elif words:
            raise ComputedLine
    return ShellWords(words, left_out=False)


def _ps_parts(line: str, in_words: frozenset[str] = frozenset()) -> Iterator[_Part]:
    """Yield the words and marks of a command; adjacent pieces form one word.

    Args:
        line: The command.
        in_words: Marks that are text.
    """
    at, word, kind = 0, None, "bare"
    while at < len(line):
        part = _PS_PART.match(line, at)
        if part is None:
            raise UnfinishedLine("a quote is not closed")
        at = part.end()
        if part["blank"] or (part["mark"] and part["mark"] not in in_words):
            if word is not None:
                yield _Part(kind, word)
            word, kind = None, "bare"
            if part["mark"]:
                yield _Part("mark", part["mark"])
            continue
        word = (word or "") + (part["mark"] or _ps_text(part))
        kind = kind if part["plain"] or part["mark"] else "text"
    if word is not None:
        yield _Part(kind, word)


def _ps_text(part: re.Match[str]) -> str:
    if part["single"] is not None:
        return part["single"].replace("''", "'")
    if part["plain"] is not None and _PS_MEMBER.search(part["plain"]):
        raise ComputedLine
    if part["plain"] is not None:
        return _PS_RESOLVED.sub(_ps_resolved, part["plain"])
    return _PS_RESOLVED.sub(_ps_interpolated, part["double"])


def _ps_resolved(found: re.Match[str]) -> str:
    if found["computed"]:
        raise ComputedLine
    if found["name"]:
        return OPEN + found["name"] + CLOSE
    return _PS_ESCAPES.get(found["escaped"], found["escaped"]) if found["escaped"] else '"'


def _ps_interpolated(found: re.Match[str]) -> str:
    name = (found["name"] or "").lower()
    return _plain(_PS_CONSTANTS[name]) if name in _PS_CONSTANTS else _ps_resolved(found)
