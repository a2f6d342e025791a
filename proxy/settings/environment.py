"""Environment variables `PROXY__SECTION__KEY`, which override the settings file."""

import json
import re
import tomllib
from collections.abc import Mapping

from proxy.settings.interpolation import Interpolated, is_text
from proxy.settings.locations import Place
from proxy.settings.section import FREE_TABLES, KeyPath, Problem

_PREFIX = "PROXY__"
_PUNCTUATION = re.compile(r"\W")


def apply_overrides(
    tree: dict[str, object], places: dict[KeyPath, Place], environ: Mapping[str, str]
) -> list[Problem]:
    """Apply `PROXY__` variables to `tree`, and record in `places` which variable set which key.

    `PROXY__UPSTREAMS__CHAT__BASE_URL` sets `upstreams.chat.base_url`. Existing keys are matched regardless of
    case and punctuation. A new key is in lower case, except in `FREE_TABLES`, where it is spelled as in the
    variable. `PROXY__ACCESS__KEYS__0__KEY` sets an item of a list; the index after the last item
    appends one. A value that parses as a TOML or JSON array or table replaces the one in the file; any other
    value is a string.

    Returns:
        A problem for each variable whose path does not fit the tree, or that does not show how a key is
        spelled. Unknown keys are reported by validation.
    """
    problems = []
    names = [name for name in environ if name.startswith(_PREFIX)]
    for name, parts in sorted(((name, _parts(name)) for name in names), key=lambda pair: _order(pair[1])):
        place = Place(f"environment {name}")
        path: KeyPath = tuple(part.lower() for part in parts)
        try:
            _, path = _with_value(tree, parts, _value(environ[name]), ())
        except ValueError as error:
            problems.append(Problem(path, str(error)))
        for replaced in [known for known in places if known[: len(path)] == path]:
            del places[replaced]
        places[path] = place
        for length in range(1, len(path)):
            places.setdefault(path[:length], place)
    return problems


def _parts(name: str) -> list[str]:
    return name.removeprefix(_PREFIX).split("__")


def _order(parts: list[str]) -> list[tuple[int, str]]:
    """Sort parents before their children, and list indexes as numbers."""
    return [(int(part) if _is_index(part) else -1, part.lower()) for part in parts]


def _is_index(part: str) -> bool:
    return part.isascii() and part.isdigit()


def _with_value(node: object, parts: list[str], value: object, above: KeyPath) -> tuple[object, KeyPath]:
    """Return `node`, which is at the path `above`, with `value` set below it; and the rest of the path.

    Raises:
        ValueError: A part of the path is neither a table nor a list, or the spelling of a key is unknown.
    """
    if not parts:
        return value, ()
    part, *below = parts
    if not part:
        raise ValueError("names no key: write PROXY__SECTION__KEY")
    if node is None:
        node = [] if _is_index(part) else {}
    if isinstance(node, dict):
        key = _as_spelled(node, part) or _new_key(part, above)
        node[key], path = _with_value(node.get(key), below, value, (*above, key))
        return node, (key, *path)
    if isinstance(node, list):
        index = int(part) if _is_index(part) else -1
        if not 0 <= index <= len(node):
            raise ValueError(f"is an item of a list of {len(node)}: give an index from 0 to {len(node)}")
        item, path = _with_value(node[index] if index < len(node) else None, below, value, (*above, index))
        node[index : index + 1] = [item]
        return node, (index, *path)
    raise ValueError("is below a single value, which is not a table")


def _as_spelled(table: dict[str, object], part: str) -> str | None:
    """Return the key as the table spells it: `appSecret` for `APPSECRET`; likewise `chat/completions`."""
    wanted = _PUNCTUATION.sub("_", part).lower()
    return next((key for key in table if _PUNCTUATION.sub("_", key).lower() == wanted), None)


def _new_key(part: str, above: KeyPath) -> str:
    """Return the spelling of a key that the table at the path `above` lacks.

    Raises:
        ValueError: It is sent, and could be meant as `APPSECRET`, `appsecret` or `appSecret`.
    """
    named = 2 if above[:1] in {("credentials",), ("upstreams",)} else 1  # the section, and its name
    free = next((step for step in above[named:] if step in FREE_TABLES), None)
    if free is None or free == "headers":  # The case of a header does not matter.
        return part.lower()
    if free != "env" and part.isupper():
        raise ValueError(
            f"the file has no such key, and a variable in capitals does not show how {free} spells it: "
            "add the key to the file, or spell the end of the variable as it is sent, such as __appSecret"
        )
    return part


def _value(text: str) -> object:
    if not is_text(text):
        raise ValueError("is not valid UTF-8")
    if text.lstrip().startswith(("[", "{")):
        for parse in (_toml_value, json.loads):
            try:
                return _marked(parse(text))
            except (ValueError, RecursionError):
                continue
    return Interpolated(text)


def _toml_value(text: str) -> object:
    document = tomllib.loads(f"value = {text}")
    if document.keys() != {"value"}:
        raise ValueError("more than one value")
    return document["value"]


def _marked(value: object) -> object:
    if isinstance(value, dict):
        return {key: _marked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item) for item in value]
    return Interpolated(value) if isinstance(value, str) else value
