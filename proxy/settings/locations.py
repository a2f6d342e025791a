"""The line of every key in a TOML text, so that errors can name it: tomllib keeps no positions."""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from proxy.settings.section import KeyPath, Problem, dotted

_BLANK = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_BETWEEN = re.compile(r"(?:[ \t\r\n,]++|#[^\n]*+)*+")
_KEY = re.compile(r"""[ \t]*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)[ \t]*(\.?)""")
_SCALAR = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}'''  # up to two quotes before the closing three belong to the text
    r"""|'''.*?'{3,5}"""
    r'''|"(?:\\.|[^"\\])*"'''
    r"""|'[^']*'"""
    r"""|[^,\]}#\r\n]+""",
    re.DOTALL,
)


class Place(NamedTuple):
    """Where a value comes from: a file (as the user named it) and a line, or an environment variable."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


def key_lines(text: str) -> dict[KeyPath, int]:
    """Map every key path of a valid TOML text, array indexes included, to its line, counted from 1.

    A table has the line of its header; an implied one (`a` in `[a.b]`) that of its first mention.
    """
    return _Scanner(text).scan()


def nearest(places: Mapping[KeyPath, Place], path: KeyPath) -> Place:
    """Return the place of `path`, or that of its closest ancestor; the root `()` must be present."""
    while path not in places:
        path = path[:-1]
    return places[path]


def report(problems: Iterable[Problem], places: Mapping[KeyPath, Place]) -> list[str]:
    """Write one line per problem, in the order of the file: `config/x.toml:12: upstreams.chat: words`."""
    located = sorted((nearest(places, path), dotted(path), words) for path, words in problems)
    return [*dict.fromkeys(f"{place}: {key}: {words}" for place, key, words in located)]


class _Scanner:
    """One pass over a text that tomllib has accepted, so that its syntax need not be checked again."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_starts = [match.end() for match in re.finditer("\n", text)]
        self._lines: dict[KeyPath, int] = {}
        self._last_index: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip(_BLANK) < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at + 1
        return self._at

    def _line(self) -> int:
        return bisect_right(self._line_starts, self._at) + 1

    def _key(self) -> list[str]:
        parts = []
        while match := _KEY.match(self._text, self._at):
            self._at = match.end()
            parts.append(_unquoted(match[1]))
            if not match[2]:
                break
        return parts

    def _header(self) -> KeyPath:
        line = self._line()
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        self._at += brackets
        *parents, name = self._key()
        self._at += brackets
        path: KeyPath = ()
        for parent in parents:
            path = (*path, parent)
            self._lines.setdefault(path, line)
            if path in self._last_index:  # under [[a]], the table [a.b] belongs to the latest a
                path = (*path, self._last_index[path])
        path = (*path, name)
        if brackets == 1:
            self._lines[path] = line
            return path
        self._lines.setdefault(path, line)
        self._last_index[path] = self._last_index.get(path, -1) + 1
        path = (*path, self._last_index[path])
        self._lines[path] = line
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for part in self._key():
            path = (*path, part)
            self._lines.setdefault(path, line)
        self._at += len("=")
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        self._skip(_BLANK)
        opening = self._text[self._at]
        if opening not in "[{":
            self._skip(_SCALAR)
            return
        self._at += 1
        index = 0
        while self._text[self._skip(_BETWEEN)] not in "]}":
            if opening == "{":
                self._pair(path)
                continue
            self._lines[(*path, index)] = self._line()
            self._value((*path, index))
            index += 1
        self._at += 1


def _unquoted(key: str) -> str:
    if key.startswith('"'):
        return str(tomllib.loads(f"key = {key}")["key"])
    return key[1:-1] if key.startswith("'") else key
