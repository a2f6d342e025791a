"""`PROXY__SECTION__KEY` variables of the environment, laid over what the file says."""

import json
import re
import tomllib
from collections.abc import Mapping

from proxy.settings.interpolation import Interpolated, is_text
from proxy.settings.locations import KeyPath, Place
from proxy.settings.problems import Problem

_PREFIX = "PROXY__"
_PUNCTUATION = re.compile(r"\W")


def apply_overrides(
    tree: dict[str, object], places: dict[KeyPath, Place], environ: Mapping[str, str]
) -> list[Problem]:
    """Set in `tree` what `PROXY__` variables say, and note in `places` that they said it.

    `PROXY__UPSTREAMS__CHAT__BASE_URL` is `upstreams.chat.base_url`; a key that the file has is found whatever
    its case and punctuation. `PROXY__ACCESS__KEYS__0__KEY` reaches into a list; the index after the last
    appends. A value that reads as a TOML or JSON array or table is taken as one and replaces the file's; any
    other is a string.

    Returns:
        A problem for each variable that leads nowhere. Whether its key is known is judged with the rest.
    """
    problems = []
    names = [name for name in environ if name.startswith(_PREFIX)]
    for name, parts in sorted(((name, _parts(name)) for name in names), key=lambda pair: _order(pair[1])):
        place = Place(f"environment {name}")
        path: KeyPath = tuple(parts)
        try:
            _, path = _with_value(tree, parts, _value(environ[name]))
        except ValueError as error:
            problems.append(Problem(path, str(error)))
        for replaced in [known for known in places if known[: len(path)] == path]:
            del places[replaced]
        places[path] = place
        for length in range(1, len(path)):
            places.setdefault(path[:length], place)
    return problems


def _parts(name: str) -> list[str]:
    return name.removeprefix(_PREFIX).lower().split("__")


def _order(parts: list[str]) -> list[tuple[int, str]]:
    """Parents before what is below them, list indexes by number."""
    return [(int(part) if _is_index(part) else -1, part) for part in parts]


def _is_index(part: str) -> bool:
    return part.isascii() and part.isdigit()


def _with_value(node: object, parts: list[str], value: object) -> tuple[object, KeyPath]:
    """Return `node` with `value` set below it, and the path at which it now stands.

    Raises:
        ValueError: The path leads through something that is neither table nor list.
    """
    if not parts:
        return value, ()
    part, *below = parts
    if not part:
        raise ValueError("names no key: write PROXY__SECTION__KEY")
    if node is None:
        node = [] if _is_index(part) else {}
    if isinstance(node, dict):
        key = _as_spelled(node, part)
        node[key], path = _with_value(node.get(key), below, value)
        return node, (key, *path)
    if isinstance(node, list):
        index = int(part) if _is_index(part) else -1
        if not 0 <= index <= len(node):
            raise ValueError(f"stands in a list of {len(node)}: give an index from 0 to {len(node)}")
        item, path = _with_value(node[index] if index < len(node) else None, below, value)
        node[index : index + 1] = [item]
        return node, (index, *path)
    raise ValueError("stands below a single value, not in a table")


def _as_spelled(table: dict[str, object], part: str) -> str:
    """Find the table's own spelling of a key: `appSecret` for `appsecret`, `chat/completions` likewise."""
    for key in table:
        if _PUNCTUATION.sub("_", key).lower() == _PUNCTUATION.sub("_", part):
            return key
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
