"""Split a command into words as cmd or PowerShell would, without running anything.

cmd: https://learn.microsoft.com/cpp/c-language/parsing-c-command-line-arguments, after cmd has resolved
`%NAME%` and `^`. PowerShell: about_Quoting_Rules and about_Special_Characters in its documentation.
"""

import json
import re
from collections.abc import Iterator
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
    check_characters,
    check_redirection,
    join_halves,
)

_INVOKE: Final = re.compile(
    r"(?:\A|[\n;|({>]|\$[\w:.]+[ \t]*=)[ \t]*"
    r"(?P<command>Invoke-WebRequest|Invoke-RestMethod|iwr|irm)(?=\s|\Z)",
    re.IGNORECASE,
)
"""Matches the command only where one can begin, and not in the name of a host."""
_PS_CONTINUED: Final = re.compile(r"`[ \t]*\r?\n")
_PS_ENVIRONMENT: Final = re.compile(r"\$\{?env:[A-Za-z_]", re.IGNORECASE)
_PS_SESSION: Final = re.compile(
    r"\$\w+\.(?P<name>Cookies|Headers|Credentials|UseDefaultCredentials|Certificates|Proxy)\b", re.IGNORECASE
)
_PS_AGENT: Final = re.compile(r"\$\w+\.UserAgent[ \t]*=[ \t]*", re.IGNORECASE)
_PS_HERE: Final = {quote: re.compile(rf"@{quote}[ \t]*\r?\n") for quote in "'\""}
"""The beginning of a here-string, by its quote."""
_PS_TWICE: Final = re.compile(r"(?:\A|\s)curl\.exe\s(?s:.*)[^\s']''[^\s']")
"""An apostrophe as PowerShell writes it within quotes, after the name that the command has in Windows."""
_PS_JSON: Final = re.compile(r"""(?<!\S)'\s*[{\[]\s*\\\"""")
"""JSON whose quotes PowerShell 5 would drop without a backslash; in bash it would not be JSON."""


def windows_words(line: str) -> ShellWords | None:
    """Return the words of an equivalent curl command; None if the command is not written for Windows.

    Raises:
        CurlLineError: It is written for Windows, but cannot be converted.
    """
    check_characters(line)
    invocation = _INVOKE.search(line)
    if invocation:
        begin = invocation.start("command")
        session = _PS_SESSION.search(line, 0, begin)
        if session:
            name = session["name"].lower()
            raise CurlLineError(
                f"the {name} of $session are not read: write them as parameters, such as -Headers"
            )
        return _Invocation(line[invocation.end() :], _user_agent(line[:begin])).words()
    signs = (_PS_CONTINUED, _PS_JSON, _PS_ENVIRONMENT, _PS_TWICE)
    if any(sign.search(line) for sign in signs) or _has_here_string(line):
        return _ps_command(line)
    return _cmd_words(line) if _is_cmd(line) else None


def _has_here_string(line: str) -> bool:
    begins = ((quote, here.search(line)) for quote, here in _PS_HERE.items())
    return any(begin and f"\n{quote}@" in line[begin.end() - 1 :] for quote, begin in begins)


# --- cmd

_CMD: Final = re.compile(r'[^\'"]*\^"|(?:[^\'"]|"[^"\n]*")*\^[ \t]*\r?\n')
"""Matches a command in which a `^` precedes the first quote or ends a line."""
_PERCENT: Final = re.compile(
    r"%(?P<name>[A-Za-z_]\w*)(?P<more>:[^%\n]*|[-.(][\w.()-]*)?%(?![0-9A-Fa-f]{2})", re.ASCII
)
"""A variable, unless it could be a part of `%E9t%C3`, which is text in a URL."""
_CMD_VARIABLE: Final = re.compile(r"%[A-Za-z_]\w{2,}%(?![0-9A-Fa-f]{2})", re.ASCII)
"""A variable that is not likely to be text."""
_SHELL_QUOTES: Final = re.compile(
    r"""\$'(?:\\.|[^'\\])*'|'(?P<single>[^']*)'|(?P<kept>"(?:\\.|[^"\\])*"|\\.)""", re.DOTALL
)
_SHELL_ONLY: Final = re.compile(r"\$[A-Za-z_{(]|`|\\\r?\n")
_CARET: Final = re.compile(r"\^(\r?\n\s*|.)", re.DOTALL)
_BACKSLASHES: Final = re.compile(r"\\+")
_DESCRIPTOR: Final = re.compile(r"(?<=\s)\d\Z")


def _is_cmd(line: str) -> bool:
    """Return whether a command is written for cmd: its `^` or, in one line, its variables show it."""
    if _CMD.match(line):
        return True
    outside = _SHELL_QUOTES.sub(lambda found: found["kept"] or "", line)
    if not _CMD_VARIABLE.search(outside):
        return False
    if outside != line or _SHELL_ONLY.search(line):
        raise CurlLineError(
            "%NAME% is a variable of cmd, but the line has signs of another shell: put it in single quotes "
            "if it is text, or write it as $NAME"
        )
    return True


def _cmd_words(line: str) -> ShellWords:
    text, left_out = _cmd_text(line)
    words: list[str] = []
    word, quoted, at = "", False, 0
    in_word = False
    while at < len(text):
        character = text[at]
        if backslashes := _BACKSLASHES.match(text, at):
            at, in_word = backslashes.end(), True
            count = len(backslashes[0])
            is_before_quote = text.startswith('"', at)
            word += "\\" * (count // 2 if is_before_quote else count)
            if is_before_quote and count % 2:
                word, at = f'{word}"', at + 1
            continue
        if quoted and text.startswith('""', at):
            word, at = f'{word}"', at + 2
            continue
        if character == '"':
            quoted, in_word = not quoted, True
        elif character.isspace() and not quoted:
            if in_word:
                words.append(word)
            word, in_word = "", False
        elif character == "'" and not in_word:
            raise CurlLineError("single quotes are text in cmd: write double quotes instead")
        else:
            word, in_word = word + character, True
        at += 1
    if quoted:
        raise UnfinishedLine("a quote is not closed")
    words += [word] if in_word else []
    return ShellWords(words, left_out)


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
            if variable["more"]:
                raise CurlLineError("only %NAME% with letters, digits and _ is read of the variables of cmd")
            pieces.append(OPEN + variable["name"] + CLOSE)
        elif caret:
            pieces.append(" " if caret[1].startswith(("\r", "\n")) else caret[1])
        elif character in "|&<>" and not quoted:
            if character == "&" and re.match(r"\S&[^\s&]", line[at - 1 : at + 2]):
                raise CurlLineError("an & outside of quotes ends a command: put the URL in quotes")
            if character in "<>":
                check_redirection(line[at:])
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
    r"|(?P<mark>@\{|(?:(?<!\S)[0-9*])?>{1,2}|[{}=;()|]|\r?\n)"
    r"|@'[ \t]*(?P<here>(?:\r?\n(?!'@)[^\n]*)*)\r?\n'@"
    r'|@"[ \t]*(?P<here_double>(?:\r?\n(?!"@)[^\n]*)*)\r?\n"@'
    r"|'(?P<single>(?:''|[^'])*)'"
    r'|"(?P<double>(?:`.|""|[^"`])*)"'
    r"|(?P<plain>(?!@['\"])(?:`.|[^\s'\"`{}=;()|>])+)",
    re.DOTALL,
)
_PS_RESOLVED: Final = re.compile(
    r"\$\(\[char\](?P<code>[0-9]{1,5})\)"
    r"|(?P<computed>\$\(|`u\{|`e|\$(?!env:)\w+:\w|\$\{(?!(?:env:)?[A-Za-z_]\w*\}))"
    r"|`(?P<escaped>.)|(?P<twice>\"\")"
    r"|\$(?:env:)?(?P<name>[A-Za-z_]\w*)|\$\{(?:env:)?(?P<braced>\w+)\}",
    re.DOTALL | re.IGNORECASE,
)
_PS_MEMBER: Final = re.compile(r"\$\{?(?:env:)?\w+\}?[.\[]", re.IGNORECASE)
_PS_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_PS_CONSTANTS: Final[dict[str, object]] = {"true": True, "false": False, "null": None}
_PS_UTF8: Final = re.compile(r"\[(?:System\.)?Text\.Encoding\]::UTF8\.GetBytes", re.IGNORECASE)
"""Encodes a body as we do, so its argument is the body. Browsers write it if the body is not ASCII."""
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
_PS_IN_WORDS: Final = frozenset({"@{", "{", "}", "="})
"""Marks that are text in the words of other commands."""


class _Part(NamedTuple):
    """A word or a sign of PowerShell."""

    kind: str
    """`text` for a word in quotes or partly so, `bare` for one without, `list` for one with a comma outside
    of quotes, `mark` for a sign."""
    text: str
    at: int
    """Where it begins in the command."""

    @property
    def is_word(self) -> bool:
        return self.kind != "mark"

    def is_end(self, line: str) -> bool:
        """Return whether the command ends here.

        Raises:
            CurlLineError: More of it follows a redirection.
        """
        if self.kind == "mark" and self.text.endswith(">"):
            check_redirection(line[self.at :].lstrip("0123456789*"))
            return True
        return self.text in (_PS_END if self.kind == "mark" else {"&"})


class _Invocation:
    """What follows `Invoke-WebRequest` or `Invoke-RestMethod`, with the parameters that are known.

    Args:
        line: The rest of the command. What follows its end is not read.
        user_agent: That of the session; a parameter replaces it.
    """

    def __init__(self, line: str, user_agent: str | None = None) -> None:
        self._line = line
        self._parts = _ps_parts(line)
        self._next = next(self._parts, None)
        self._found = ["curl", "-g", *([] if user_agent is None else ["-A", user_agent])]
        self._method = "GET"
        self._body: str | dict[str, object] = ""

    def words(self) -> ShellWords:
        """Convert the command.

        Raises:
            CurlLineError: A parameter is unknown, or a value is computed.
        """
        while self._next is not None and not self._next.is_end(self._line):
            part = self._take()
            if part.kind == "bare" and part.text.startswith("-"):
                self._parameter(part.text[1:])
            elif part.is_word and "--url" not in self._found:  # the first positional argument
                self._found += ["--url", part.text]
            else:
                raise ComputedLine
        left_out = self._next is not None and re.search(r"\w", self._line[self._next.at :]) is not None
        return ShellWords(self._found + self._body_words(), left_out)

    def _is_mark(self, *marks: str) -> bool:
        return self._next is not None and self._next.kind == "mark" and self._next.text in marks

    def _take(self) -> _Part:
        part = self._next
        if part is None:
            raise UnfinishedLine("the last parameter has no value")
        if part.kind == "bare" and part.text.startswith("@") and part.text != "@":
            raise CurlLineError("@NAME: splatting is not read: write the parameters into the line")
        if part.kind == "list":
            raise CurlLineError("a comma outside of quotes makes a list: put the text in quotes")
        self._next = next(self._parts, None)
        return part

    def _parameter(self, written: str) -> None:
        name = written.lower()
        if name in _PS_SWITCHES:
            self._found += _PS_SWITCHES[name]
        elif name == "headers":
            table = self._value("")
            if not isinstance(table, dict):
                raise CurlLineError("-headers: write the table here, as @{...}")
            self._found += [word for key, item in table.items() for word in ("-H", f"{key}: {_plain(item)}")]
        elif name == "body":
            self._body = self._value(name)
        elif name in _PS_WITHOUT_EFFECT:
            self._value("")
        elif name in _PS_PARAMETERS or name == "contenttype":
            value = self._value("")
            if not isinstance(value, str):
                raise ComputedLine
            self._method = value.upper() if name == "method" else self._method
            option = _PS_PARAMETERS.get(name)
            self._found += [option, value] if option else ["-H", f"Content-Type: {value}"]
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
        while self._is_mark("(") or (depth and self._next and _PS_UTF8.fullmatch(self._next.text)):
            depth += self._take().kind == "mark"
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
                raise CurlLineError("a parameter has no value")
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
        while self._next is not None and self._next.is_word:
            option = self._take().text.lower()
            if option == "-depth":
                self._take()
            elif option != "-compress":
                raise ComputedLine
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
        if not self._body:
            return []
        if isinstance(self._body, dict):
            form = urlencode({key: _plain(value) for key, value in self._body.items()})
            return [*(["-G"] if self._method == "GET" else []), "--data-raw", form]
        if self._method == "GET":
            raise CurlLineError("-method: without it PowerShell sends GET without a body: add -Method Post")
        return ["--data-raw", self._body]


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
    return "" if value is None else str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _ps_command(line: str) -> ShellWords:
    """Return the words of `curl.exe` as PowerShell passes them."""
    words: list[str] = []
    for part in _ps_parts(line, _PS_IN_WORDS):
        if words and part.is_end(line):
            return ShellWords(words, left_out=True)
        if part.is_word:
            words.append(part.text.replace('\\"', '"'))
        elif words:
            raise ComputedLine
    return ShellWords(words, left_out=False)


def _ps_parts(line: str, in_words: frozenset[str] = frozenset()) -> Iterator[_Part]:
    """Yield the words and marks of a command; adjacent pieces form one word.

    Args:
        line: The command.
        in_words: Marks that are text.
    """
    at, begin, word, kind = 0, 0, None, "bare"
    while at < len(line):
        part = _PS_PART.match(line, at)
        if part is None and re.match(r"@['\"][ \t]*[^\s]", line[at:]):
            raise CurlLineError("the text of a here-string begins in the line after @' or @\"")
        if part is None:
            raise UnfinishedLine("a quote is not closed")
        at = part.end()
        if part["blank"] or (part["mark"] and part["mark"] not in in_words):
            if word is not None:
                yield _Part(kind, word, begin)
            word, kind, begin = None, "bare", at
            if part["mark"]:
                yield _Part("mark", part["mark"], part.start())
            continue
        word = (word or "") + (part["mark"] or _ps_text(part))
        if "," in (part["plain"] or ""):
            kind = "list"
        elif not part["plain"] and not part["mark"] and kind == "bare":
            kind = "text"
    if word is not None:
        yield _Part(kind, word, begin)


def _user_agent(session: str) -> str | None:
    """Return the user agent that the commands before an invocation set; None if they set none."""
    assigned = _PS_AGENT.search(session)
    if assigned is None:
        return None
    rest = session[assigned.end() :]
    parts = _ps_parts(rest)
    value, after = next(parts, None), next(parts, None)
    if value is None or not value.is_word or (after is not None and not after.is_end(rest)):
        raise ComputedLine
    return value.text


def _ps_text(part: re.Match[str]) -> str:
    if part["single"] is not None:
        return part["single"].replace("''", "'")
    if part["here"] is not None:
        return re.sub(r"\A\r?\n", "", part["here"])
    if part["here_double"] is not None:
        text = re.sub(r"\A\r?\n", "", part["here_double"])
        return join_halves(_PS_RESOLVED.sub(lambda found: found["twice"] or _ps_interpolated(found), text))
    if part["plain"] is not None and _PS_MEMBER.search(part["plain"]):
        raise ComputedLine
    if part["plain"] is not None:
        return join_halves(_PS_RESOLVED.sub(_ps_resolved, part["plain"]))
    return join_halves(_PS_RESOLVED.sub(_ps_interpolated, part["double"]))


def _ps_resolved(found: re.Match[str]) -> str:
    if found["computed"]:
        raise ComputedLine
    if found["code"]:
        number = int(found["code"])
        return "\0" if number > 0xFFFF or chr(number) in OPEN + CLOSE else chr(number)
    name = found["name"] or found["braced"]
    if name:
        return OPEN + name + CLOSE
    return _PS_ESCAPES.get(found["escaped"], found["escaped"]) if found["escaped"] else '"'


def _ps_interpolated(found: re.Match[str]) -> str:
    name = (found["name"] or found["braced"] or "").lower()
    return _plain(_PS_CONSTANTS[name]) if name in _PS_CONSTANTS else _ps_resolved(found)
