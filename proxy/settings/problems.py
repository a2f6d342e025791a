"""A problem of the settings, and the words for it: they never repeat a value, for it may be a secret."""

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import NamedTuple

from proxy.settings.locations import KeyPath, Place, nearest

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Problem(NamedTuple):
    """What is wrong with the value at a key path."""

    path: KeyPath
    words: str


def report(problems: Iterable[Problem], places: Mapping[KeyPath, Place]) -> list[str]:
    """Write one line a problem, in the order of the file: `config/x.toml:12: upstreams.chat: words`."""
    located = sorted((nearest(places, path), dotted(path), words) for path, words in problems)
    return [*dict.fromkeys(f"{place}: {key}: {words}" for place, key, words in located)]


def dotted(path: KeyPath) -> str:
    """Write a key path as TOML does: `routes."chat/completions"`; an index as in `access.keys.0.key`."""
    return ".".join(
        str(part) if isinstance(part, int) or _BARE_KEY.fullmatch(part) else quoted(part) for part in path
    )


def listed(names: Iterable[str]) -> str:
    """Write `"a", "b"`."""
    return ", ".join(f'"{name}"' for name in sorted(names))


def suggestion(written: str, known: Collection[str]) -> str:
    """Name the known word nearest to what was written, or else all of them."""
    near = get_close_matches(written, known, n=1)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known: {listed(known)}" if known else "there are none"


def quoted(text: str) -> str:
    """Write a TOML string; what could not be seen, or could play tricks on a terminal, is escaped."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in {'"', "\\"}:
        return f"\\{character}"
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
