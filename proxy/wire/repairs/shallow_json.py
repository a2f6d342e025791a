"""Parse JSON one level at a time, so that values that do not change keep their bytes.

The functions build a bounded number of objects, whatever the bytes hold: a long text that holds more raises
`TooManyItems`. What is not built, msgspec skips at hundreds of MiB a second.
"""

import functools
import re
from collections.abc import Callable
from itertools import islice
from typing import Final

import msgspec

Members = dict[str, msgspec.Raw]
"""A JSON object whose values are not parsed yet."""

NULL: Final = msgspec.Raw(b"null")
ITEMS_MAX: Final = 5_000
"""A body or an event that holds a longer list or a larger object is not repaired, because each item takes
time."""
IDS_MAX: Final = 10_000
"""The same for the input of an embedding request, which may be the token ids of one long text."""
VALUES_MAX: Final = 50_000
"""The maximum number of values, at any depth, that are built from one long text."""
SHORT_BYTES: Final = 64 * 1024
"""A text of this size is parsed without counting, because it cannot hold enough to take long."""
OBJECTS_MAX: Final = 4_000
"""A short body with more objects is not repaired, because each object takes microseconds."""
OBJECT_BYTES: Final = 200
"""A long one is not repaired if its objects are shorter than this on average."""
OBJECTS_OF_LONGEST: Final = 40_000
"""No body with more objects is repaired."""
MEMBERS_MAX: Final = 200_000
"""No body with more members is repaired, because they take time even in few objects."""
FEW_ITEMS: Final = 256
"""Most long lists have fewer items. A decoder of so many is built in a millisecond, one of `ITEMS_MAX` in
tens of milliseconds."""
_MATCHES_AT_END: Final = 2
_TO_SIGN: Final = rb'(?:[^"%b]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"?+)*+(?:[%b]|\Z)'
"""Up to the next sign outside of strings. Because it always matches, no byte is searched twice."""
_TO_VALUE: Final = re.compile(_TO_SIGN % (rb",\[{", rb",\[{"), re.DOTALL)
_TO_MEMBER: Final = re.compile(_TO_SIGN % (rb":", rb":"), re.DOTALL)
_ABSENT: Final = msgspec.Raw(b"")
_OPENING_BRACE, _OPENING_BRACKET, _QUOTE, _N = b'{["n'
_MEMBERS: Final = msgspec.json.Decoder(Members)
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ANYTHING: Final = msgspec.json.Decoder(msgspec.Raw)


class TooManyItems(Exception):
    """A text holds too much to be parsed; the body or the event that holds it is relayed unrepaired."""


class _Name(str):
    """The name of a member. Because msgspec does not know this type, it calls a function for each."""

    __slots__ = ()


def is_short(written: bytes | msgspec.Raw) -> bool:
    """Whether a text is too short to hold much."""
    return memoryview(written).nbytes <= SHORT_BYTES


def open_object(written: bytes | None) -> Members | None:
    """Return the members of an object; None if the bytes are not a JSON object.

    Raises:
        TooManyItems: The object has too many members.
    """
    if written is None:
        return None
    view = memoryview(written)
    if isinstance(written, msgspec.Raw) and (not view or view[0] != _OPENING_BRACE):
        return None
    try:
        return _MEMBERS.decode(written) if view.nbytes <= SHORT_BYTES else _open_long_object(written)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _open_long_object(written: bytes) -> Members:
    left = ITEMS_MAX

    def count(_type: type, name: str) -> _Name:
        nonlocal left
        left -= 1
        if left < 0:
            raise TooManyItems
        return _Name(name)

    members = msgspec.json.decode(written, type=dict[_Name, msgspec.Raw], dec_hook=count)
    return {str(name): value for name, value in members.items()}


def open_list(written: bytes | None, limit: int = ITEMS_MAX) -> list[msgspec.Raw] | None:
    """Return the items of a list; None if the bytes are not a JSON list.

    Args:
        limit: The number of items that are not too many.

    Raises:
        TooManyItems: The list is too long.
    """
    if written is None:
        return None
    view = memoryview(written)
    if isinstance(written, msgspec.Raw) and (not view or view[0] != _OPENING_BRACKET):
        return None
    try:
        is_long = view.nbytes > SHORT_BYTES
        items = _open_long_list(written, limit + 1) if is_long else _ITEMS.decode(written)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if len(items) > limit:
        raise TooManyItems
    return items


def _open_long_list(written: bytes, count: int) -> list[msgspec.Raw]:
    """Return the items of a list; those after the first `count` may be left out."""
    items = _open_beginning(written, FEW_ITEMS)
    if len(items) < FEW_ITEMS:
        return items
    if bytes(written).count(b",") <= VALUES_MAX:
        return _ITEMS.decode(written)
    return _open_beginning(written, count)


def _open_beginning(written: bytes, count: int) -> list[msgspec.Raw]:
    """Return the first items of a list."""
    fields = msgspec.structs.astuple(_beginning(count).decode(written))
    return [item for item in fields if item is not _ABSENT]


@functools.cache
def _beginning(count: int) -> msgspec.json.Decoder[msgspec.Struct]:
    """Return a decoder of the first items of a list: msgspec skips the items that have no field."""
    fields = [(f"item_{place}", msgspec.Raw, _ABSENT) for place in range(count)]
    return msgspec.json.Decoder(msgspec.defstruct("Beginning", fields, array_like=True))


def is_json(body: bytes) -> bool:
    """Whether a body is strict JSON of any type; no value is built."""
    try:
        _ANYTHING.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def holds_too_much(body: bytes) -> bool:
    """Whether a body has too many objects or members to be repaired."""
    objects_max = max(OBJECTS_MAX, min(len(body) // OBJECT_BYTES, OBJECTS_OF_LONGEST))
    return holds_more(body, objects_max, MEMBERS_MAX)


def holds_more(text: bytes, objects: int, members: int) -> bool:
    """Whether a text has more objects or members than that; braces within strings count as objects."""
    return text.count(b"{") > objects or _has_more(text, b":", members, _TO_MEMBER)


def has_too_many_values(written: bytes | msgspec.Raw) -> bool:
    """Whether a text holds too many values to build all of them."""
    if is_short(written) or first_byte(written) == b'"':
        return False
    return _has_more(bytes(written), b",[{", VALUES_MAX, _TO_VALUE)  # One sign before each value.


def _has_more(text: bytes, signs: bytes, most: int, to_sign: re.Pattern[bytes]) -> bool:
    """Whether more than so many signs are outside of strings. Most texts do not have so many in all."""
    if len(text) <= most or sum(text.count(sign) for sign in signs) <= most:
        return False
    return any(islice(to_sign.finditer(text), most + _MATCHES_AT_END, None))


def read_value(written: bytes | None) -> object:
    """Parse a whole value; None if it is null, absent or not JSON.

    Raises:
        TooManyItems: It holds too many values.
    """
    if written is None:
        return None
    if memoryview(written).nbytes > SHORT_BYTES and has_too_many_values(written):
        raise TooManyItems
    try:
        return msgspec.json.decode(written)
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
    if written is None:
        return True
    view = memoryview(written)
    return not view or view[0] == _N


def is_empty(written: bytes | msgspec.Raw | None) -> bool:
    """Whether a member is null, absent, or an empty text, list or object."""
    if written is None:
        return True
    view = memoryview(written)
    first = view[0] if view else _N
    if first == _QUOTE:
        return len(view) == len(b'""')
    if first in {_OPENING_BRACE, _OPENING_BRACKET}:
        return not bytes(view[1:-1]).strip()
    return first == _N


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
