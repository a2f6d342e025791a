"""Parse JSON one level at a time, so that values that do not change keep their bytes."""

from collections.abc import Callable
from typing import Final

import msgspec

Members = dict[str, msgspec.Raw]
"""A JSON object whose values are not parsed yet."""

NULL: Final = msgspec.Raw(b"null")
ITEMS_MAX: Final = 5_000
"""A body or an event with a longer list is not repaired, because each item takes time in every repair."""
IDS_MAX: Final = 10_000
"""The same for the input of an embedding request, which may be the token ids of one long text."""
OBJECTS_MAX: Final = 4_000
"""A short body with more objects is not repaired, because each object takes microseconds."""
OBJECT_BYTES: Final = 200
"""A long body is not repaired if its objects are shorter than this on average."""
_COMMAS_MAX: Final = 1_000_000
_DENSE_BYTES: Final = 6
_MEMBERS: Final = msgspec.json.Decoder(Members)
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ANYTHING: Final = msgspec.json.Decoder(msgspec.Raw)


class TooManyItems(Exception):
    """A list has too many items; the body or the event that holds it is relayed unrepaired."""


def open_object(written: bytes | None) -> Members | None:
    """Return the members of an object; None if the bytes are not a JSON object."""
    if written is None or (isinstance(written, msgspec.Raw) and first_byte(written) != b"{"):
        return None
    try:
        return _MEMBERS.decode(written)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def open_list(written: bytes | None, limit: int = ITEMS_MAX) -> list[msgspec.Raw] | None:
    """Return the items of a list; None if the bytes are not a JSON list.

    Args:
        limit: The number of items that are not too many.

    Raises:
        TooManyItems: The list is too long.
    """
    if written is None or (isinstance(written, msgspec.Raw) and first_byte(written) != b"["):
        return None
    if len(memoryview(written)) > _COMMAS_MAX and _is_dense(bytes(written)):
        raise TooManyItems
    try:
        items = _ITEMS.decode(written)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if len(items) > limit:
        raise TooManyItems
    return items


def is_json(body: bytes) -> bool:
    """Whether a body is strict JSON of any type; no value is built."""
    try:
        _ANYTHING.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def has_too_many_objects(body: bytes) -> bool:
    """Whether a body has too many objects to parse."""
    return body.count(b"{") > max(OBJECTS_MAX, len(body) // OBJECT_BYTES)


def _is_dense(written: bytes) -> bool:
    """Whether the items of a list are so short that parsing them takes many times the memory of the text."""
    commas = written.count(b",")
    return commas > _COMMAS_MAX and len(written) < _DENSE_BYTES * commas


def read_value(written: bytes | None) -> object:
    """Parse a whole value; None if it is null, absent or not JSON."""
    try:
        return None if written is None else msgspec.json.decode(written)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def to_json(value: object) -> bytes:
    """Encode a value, which may contain unparsed members and items."""
    return msgspec.json.encode(value)


def write(value: object) -> msgspec.Raw:
    """Encode a value as a member or an item."""
    return msgspec.Raw(to_json(value))


def first_byte(written: bytes | msgspec.Raw | None) -> bytes:
    """Return the first byte of a member, which shows its type; empty if the member is absent."""
    return b"" if written is None else bytes(memoryview(written)[:1])


def is_null(written: bytes | msgspec.Raw | None) -> bool:
    """Whether a member is null or absent."""
    return first_byte(written) in {b"", b"n"}


def is_empty(written: bytes | msgspec.Raw | None) -> bool:
    """Whether a member is null, absent, or an empty text, list or object."""
    if is_null(written) or written is None:
        return True
    view = memoryview(written)
    if bytes(view[:1]) == b'"':
        return len(view) == len(b'""')
    return bytes(view[:1]) in {b"[", b"{"} and not bytes(view[1:-1]).strip()


def is_text(written: bytes | msgspec.Raw | None) -> bool:
    """Whether a member is a string that is not empty."""
    return first_byte(written) == b'"' and not is_empty(written)


def change_items(members: Members, name: str, change: Callable[[Members], Members | None]) -> Members | None:
    """Change the objects in the list that a member holds.

    Args:
        change: Returns the new members of an object, or None to keep it.

    Returns:
        The members with the new list, or None if nothing changed.
    """
    items = open_list(members.get(name)) or []
    changed = False
    for place, item in enumerate(items):
        opened = open_object(item)
        new = None if opened is None else change(opened)
        if new is not None:
            items[place] = write(new)
            changed = True
    return {**members, name: write(items)} if changed else None
