"""Join the values that a member has in the chunks of a stream, in their own spelling.

A delta is a difference: texts and lists continue those before them, and objects do so member by member. Of
numbers and booleans the last value counts. Null and empty values count only if there is no other.
"""

import base64
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from proxy.wire.repairs.shallow_json import (
    Members,
    TooManyItems,
    first_byte,
    is_empty,
    is_text,
    open_list,
    open_object,
    read_value,
    to_json,
    write,
)
from proxy.wire.repairs.tool_calls import read_index

_NAMING: Final = frozenset({"id", "index", "object", "role", "type"})
"""Members that say which thing a part belongs to; they are repeated, but never continued."""
_TEXTS: Final = frozenset(
    """
    arguments content data input reasoning reasoning_content refusal summary text thinking transcript
    """.split()  # noqa: SIM905 - a list of words reads better so
)
"""Texts that are continued even if all parts are the same, as in "ha" and "ha"."""
_DEPTH_MAX: Final = 8
"""Objects that are nested deeper are not joined, because each level is parsed again."""


def join_members(parts: Iterable[Members], depth: int = 0) -> Members:
    """Join objects member by member."""
    values: dict[str, list[bytes]] = {}
    for part in parts:
        for name, value in part.items():
            values.setdefault(name, []).append(bytes(value))
    return {name: join_values(name, each, depth) for name, each in values.items()}


def join_values(name: str, values: Sequence[bytes], depth: int = 0) -> msgspec.Raw:
    """Join the values that the member of this name has in the chunks; there must be one at least."""
    kept = [value for value in values if not is_empty(value)] or values[-1:]
    kinds = {first_byte(value) for value in kept}
    if len(kept) > 1 and kinds == {b'"'}:
        return msgspec.Raw(_join_texts(name, kept))
    if len(kept) > 1 and kinds == {b"["}:
        return msgspec.Raw(_join_lists(kept, depth))
    if len(kept) > 1 and kinds == {b"{"} and depth < _DEPTH_MAX:
        return write(join_members(filter(None, map(open_object, kept)), depth + 1))
    return msgspec.Raw(kept[-1])


def _join_texts(name: str, texts: Sequence[bytes]) -> bytes:
    is_constant = name not in _TEXTS and all(before == after for before, after in pairwise(texts))
    if is_constant or name in _NAMING:
        return texts[0]
    if name == "data" and any(text.endswith(b'="') for text in texts[:-1]):
        return _join_base64(texts)
    return _join_spelled(texts)


def _join_spelled(texts: Sequence[bytes]) -> bytes:
    return b'"' + b"".join([text[1:-1] for text in texts]) + b'"'


def _join_base64(texts: Sequence[bytes]) -> bytes:
    """Join pieces of audio of which each is padded, so that their texts cannot be concatenated."""
    try:
        pieces = [base64.b64decode(str(read_value(text)), validate=True) for text in texts]
    except ValueError:
        return _join_spelled(texts)
    return b'"' + base64.b64encode(b"".join(pieces)) + b'"'


def _join_lists(lists: Sequence[bytes], depth: int) -> bytes:
    indexed = _join_indexed(lists, depth) if depth < _DEPTH_MAX else None
    if indexed is not None:
        return to_json(indexed)
    return b"[" + b",".join([each[1:-1] for each in lists]) + b"]"


def _join_indexed(lists: Sequence[bytes], depth: int) -> list[Members] | None:
    """Join the items of the same index; None if not all items are objects with an index.

    OpenRouter gives one index to two items of different types in its `reasoning_details`.
    """
    found: list[tuple[int, list[Members]]] = []
    latest: dict[int, list[Members]] = {}
    try:
        items = [open_object(item) for each in lists for item in open_list(each) or ()]
    except TooManyItems:
        return None
    for item in items:
        index = None if item is None else read_index(item)
        if item is None or index is None:
            return None
        parts = latest.get(index)
        if parts is None or _has_another_type(item, parts[0]):
            latest[index] = parts = []
            found.append((index, parts))
        parts.append(item)
    found.sort(key=lambda each: each[0])
    return [join_members(parts, depth + 1) for _, parts in found]


def _has_another_type(item: Members, other: Members) -> bool:
    kinds = [bytes(each["type"]) for each in (item, other) if is_text(each.get("type"))]
    return len(kinds) == 2 and kinds[0] != kinds[1]
