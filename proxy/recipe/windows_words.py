"""Split a request as copied for Windows into the words of a curl command: cmd's and PowerShell's.

cmd: https://learn.microsoft.com/cpp/c-language/parsing-c-command-line-arguments after `^` is taken away.
PowerShell: about_Quoting_Rules and about_Special_Characters of its documentation.
"""

import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlencode

from proxy.recipe.shell_words import CLOSE, OPEN, ComputedLine, CurlLineError, UnfinishedLine

_CMD: Final = re.compile(r'[^\'"]*\^"|(?:[^\'"]|"[^"\n]*")*\^[ \t]*\r?\n')
"""The first quote has a `^` before it, or a line ends with one."""
_CARET: Final = re.compile(r"\^(\r?\n\s*|.)", re.DOTALL)
_INVOKE: Final = re.compile(r"\b(?:Invoke-WebRequest|Invoke-RestMethod|iwr|irm)\b", re.IGNORECASE)
_CONTINUED: Final = re.compile(r"`[ \t]*\r?\n")
_PART: Final = re.compile(
    r"(?P<blank>(?:[ \t]|`[ \t]*\r?\n)+)"
    r"|(?P<mark>@\{|[{}=;()|]|\r?\n)"
    r"|'(?P<single>(?:''|[^'])*)'"
    r'|"(?P<double>(?:`.|""|[^"`])*)"'
    r"|(?P<plain>(?:`.|[^\s'\"`{}=;()|])+)",
    re.DOTALL,
)
_IN_DOUBLE: Final = re.compile(
    r"`(?P<escaped>.)|(?P<twice>\"\")|(?P<computed>\$\()|\$\{?(?:env:)?(?P<name>[A-Za-z_]\w*)\}?", re.DOTALL
)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}
_PARAMETERS: Final = {"uri": "--url", "method": "-X", "useragent": "-A", "timeoutsec": "-m", "proxy": "-x"}


def windows_words(line: str) -> list[str] | None:
    """The words of a curl command that sends the same; None if the line is not written for Windows.

    Raises:
        CurlLineError: it is, and cannot be read.
    """
    if _INVOKE.search(line):
        return _invoked(line)
    if _CONTINUED.search(line):
        return [text.replace('\\"', '"') for kind, text in _parts(line) if kind == "text"]
    return _cmd_words(line) if _CMD.match(line) else None


def _cmd_words(line: str) -> list[str]:
    text = _CARET.sub(lambda found: " " if found[1].startswith(("\r", "\n")) else found[1], line)
    words: list[str] = []
    word, quoted, at = "", False, 0
    begun = False
    while at < len(text):
        character = text[at]
        backslashes = len(text) - at - len(text[at:].lstrip("\\")) if character == "\\" else 0
        if backslashes and text[at + backslashes : at + backslashes + 1] == '"':
            word, begun = word + "\\" * (backslashes // 2), True
            at += backslashes
            if backslashes % 2:
                word, at = f'{word}"', at + 1
            continue
        if character == '"':
            quoted, begun = not quoted, True
        elif character.isspace() and not quoted:
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            word, begun = word + character, True
        at += 1
    if quoted:
        raise UnfinishedLine("a quote in the line has no end")
    return [*words, word] if begun else words


def _invoked(line: str) -> list[str]:
    """`Invoke-WebRequest` and `Invoke-RestMethod` with the parameters that browsers write."""
    begin = _INVOKE.search(line)
    parts = list(_parts(line[begin.end() if begin else 0 :]))
    words, body, is_json = ["curl"], "", "convertto-json" in line.lower()
    at = 0
    while at < len(parts):
        kind, text = parts[at]
        name = text[1:].lower() if kind == "text" and text.startswith("-") else ""
        at += 1
        if not name:
            if "://" in text and "--url" not in words:  # the first argument without a name
                words += ["--url", text]
            continue
        while at < len(parts) and parts[at] == ("mark", "("):
            at += 1
        if at < len(parts) and parts[at] == ("mark", "@{"):
            table, at = _table(parts, at + 1)
            if name == "headers":
                words += [word for key, value in table.items() for word in ("-H", f"{key}: {value}")]
            elif name == "body":
                body = json.dumps(table, ensure_ascii=False) if is_json else urlencode(table)
        elif at < len(parts) and parts[at][0] == "text" and not parts[at][1].startswith("-"):
            value, at = parts[at][1], at + 1
            if name in _PARAMETERS:
                words += [_PARAMETERS[name], value]
            elif name == "contenttype":
                words += ["-H", f"Content-Type: {value}"]
            elif name == "body":
                body = value
    return [*words, "--data-raw", body] if body else words


def _table(parts: list[tuple[str, str]], at: int) -> tuple[dict[str, str], int]:
    """A hash table up to its `}`, and the place after it."""
    texts: list[str] = []
    while at < len(parts) and parts[at] != ("mark", "}"):
        if parts[at] == ("mark", "@{"):
            raise CurlLineError("a table in a table cannot be read: write the body as JSON text")
        if parts[at][0] == "text":
            texts.append(parts[at][1])
        at += 1
    return dict(zip(texts[::2], texts[1::2], strict=False)), at + 1


def _parts(line: str) -> Iterator[tuple[str, str]]:
    """("text", word) and ("mark", sign) of PowerShell; what touches is one word."""
    at, word = 0, None
    while at < len(line):
        part = _PART.match(line, at)
        if part is None:
            raise UnfinishedLine("a quote in the line has no end")
        at = part.end()
        if part["blank"] or part["mark"]:
            if word is not None:
                yield "text", word
            word = None
            if part["mark"]:
                yield "mark", part["mark"]
            continue
        word = (word or "") + _text(part)
    if word is not None:
        yield "text", word


def _text(part: re.Match[str]) -> str:
    if part["single"] is not None:
        return part["single"].replace("''", "'")
    text = part["double"] if part["double"] is not None else part["plain"]
    return _IN_DOUBLE.sub(_resolved, text)


def _resolved(found: re.Match[str]) -> str:
    if found["computed"]:
        raise ComputedLine
    if found["name"]:
        return OPEN + found["name"] + CLOSE
    return _ESCAPES.get(found["escaped"], found["escaped"]) if found["escaped"] else '"'
