"""Join the values that a member has in the chunks of a stream, in their own spelling.

A delta is a difference: texts and lists continue those before them, and objects do so member by member. Of
numbers and booleans the last value counts. Null and empty values count only if there is no other. If the kind
of a member changes, the values of its last kind are joined, but if it is known as a text, its texts.
"""

import base64
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

from proxy.wire.repairs.shallow_json import (
    NULL,
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

_NAMING: Final = frozenset({"format", "id", "index", "model", "object", "role", "type"})
"""Members that say which thing a part belongs to; they are repeated, but never continued."""
_UNSEEN: Final = _NAMING | {"reference_ids"}
"""Members of a part that no text can show, such as the numbers of the sources that Mistral's models name."""
_STATES: Final = frozenset({"finish_reason", "signature", "state", "status"})
"""Texts that replace those before them."""
_TEXTS: Final = frozenset(
    """
    arguments content data input reasoning reasoning_content refusal summary text thinking transcript
    """.split()  # noqa: SIM905 - a list of words reads better so
)
"""Texts that are continued even if all parts are the same, as in "ha" and "ha"."""
_DEPTH_MAX: Final = 8
"""Objects that are nested deeper are not joined, because each level is parsed again."""
_TEXT_OR_NUMBER: Final = frozenset({b'"', b"-", *(b"%d" % digit for digit in range(10))})
_PARTS_DEPTH_MAX: Final = 4
"""The lists and objects around a text of thinking."""
BUILT_MAX: Final = 200_000
"""How many objects are built to join one stream. Each takes microseconds and hundreds of bytes."""

Values = dict[str, list[bytes]]
"""The values that each member has in the chunks, by its name."""


class ValueJoiner:
    """Joins the values of one stream, for which it builds a bounded number of objects.

    Its methods raise `TooManyItems` if the values need more.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit

    def count(self, number: int = 1) -> None:
        """Count objects that are built.

        Raises:
            TooManyItems: They are too many, together with those before.
        """
        self._left -= number
        if self._left < 0:
            raise TooManyItems

    def gather(self, values: Values, members: Members) -> None:
        """Append the value of each member to those of the same name."""
        for name, value in members.items():
            earlier = values.get(name)
            if earlier is None:
                self.count()
                values[name] = [bytes(value)]
            else:
                earlier.append(bytes(value))

    def gather_texts(
        self, values: Values, content: bytes | msgspec.Raw, name: str = "content", depth: int = 0
    ) -> bool:
        """Append each text in the content of a message to the values of the member that it belongs to.

        A part is `{"type": "text", "text": "..."}`, or holds thinking, which Mistral nests a level deeper, or
        the words with which the model rejects a request.

        Returns:
            Whether the content holds nothing else, such as an image; otherwise not all texts are appended.
        """
        if is_empty(content):
            return True
        first = first_byte(content)
        if first in _TEXT_OR_NUMBER:
            text = bytes(content) if first == b'"' else b'"%b"' % bytes(content)
            values.setdefault(name, []).append(text)
            return True
        if depth >= _PARTS_DEPTH_MAX or first not in {b"[", b"{"}:
            return False
        self.count()
        items = open_list(content)
        if items is not None:
            self.count(len(items))
            return all(self.gather_texts(values, item, name, depth + 1) for item in items)
        part = open_object(content)
        if part is None:
            return False
        body = next((part[each] for each in ("text", "content") if not is_empty(part.get(each))), NULL)
        others = (("reasoning_content", part.get("thinking", NULL)), ("refusal", part.get("refusal", NULL)))
        texts = [(its_name, text) for its_name, text in ((name, body), *others) if not is_empty(text)]
        if not texts:
            return all(is_empty(value) for member, value in part.items() if member not in _UNSEEN)
        return all(self.gather_texts(values, text, its_name, depth + 1) for its_name, text in texts)

    def join_members(self, values: Values, depth: int = 0) -> Members:
        """Join the values of each member."""
        return {name: self.join(name, each, depth) for name, each in values.items()}

    def join(self, name: str, values: Sequence[bytes], depth: int = 0) -> msgspec.Raw:
        """Join the values of one member; there must be one at least."""
        kept = [value for value in values if not is_empty(value)]
        if len(kept) < 2:
            return msgspec.Raw(kept[0] if kept else values[-1])
        has_text = name in _TEXTS and any(value[:1] == b'"' for value in kept)
        kind = b'"' if has_text else kept[-1][:1]
        same = [value for value in kept if value[:1] == kind]
        if kind == b'"':
            return msgspec.Raw(_join_texts(name, same))
        if kind == b"[":
            return msgspec.Raw(self._join_lists(same, depth))
        if kind == b"{" and depth < _DEPTH_MAX and len(same) > 1:
            return write(self._join_objects(same, depth))
        return msgspec.Raw(same[-1])

    def _join_objects(self, objects: Sequence[bytes], depth: int) -> Members:
        values: Values = {}
        for each in objects:
            self.gather(values, self._open(each) or {})
        return self.join_members(values, depth + 1)

    def _join_lists(self, lists: Sequence[bytes], depth: int) -> bytes:
        indexed = self._join_indexed(lists, depth) if depth < _DEPTH_MAX and len(lists) > 1 else None
        if indexed is not None:
            return to_json(indexed)
        return b"[" + b",".join([each[1:-1] for each in lists]) + b"]"

    def _join_indexed(self, lists: Sequence[bytes], depth: int) -> list[Members] | None:
        """Join the items of the same index; None if not all items are objects with an index.

        OpenRouter gives one index to two items of different types in its `reasoning_details`.
        """
        found: list[tuple[int, Values]] = []
        latest: dict[int, Values] = {}
        for each in lists:
            try:
                items = open_list(each) or ()
            except TooManyItems:
                return None
            for written in items:
                item = self._open(written)
                index = None if item is None else read_index(item)
                if item is None or index is None:
                    return None
                values = latest.get(index)
                if values is None or _has_another_type(item, values):
                    self.count()
                    latest[index] = values = {}
                    found.append((index, values))
                self.gather(values, item)
        found.sort(key=lambda each: each[0])
        return [self.join_members(values, depth + 1) for _, values in found]

    def _open(self, written: bytes) -> Members | None:
        self.count()
        return open_object(written)


def _join_texts(name: str, texts: Sequence[bytes]) -> bytes:
    is_constant = name not in _TEXTS and all(before == after for before, after in pairwise(texts))
    if is_constant or name in _NAMING:
        return texts[0]
    if name in _STATES:
        return texts[-1]
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


def _has_another_type(item: Members, values: Values) -> bool:
    kind, first = bytes(item.get("type", b"")), values.get("type", [b""])[0]
    return kind != first and is_text(kind) and is_text(first)
