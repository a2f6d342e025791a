"""JSON opened one level at a time, so that what is not changed keeps its very bytes."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

Members = dict[str, msgspec.Raw]
"""An object whose values are still bytes."""

NULL: Final = msgspec.Raw(b"null")
_MEMBERS: Final = msgspec.json.Decoder(Members)
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ABSENT: Final = frozenset({b"null", b"[]", b"{}", b'""'})


def open_object(written: bytes | None) -> Members | None:
    """The members of an object; None where it is none, or no sound JSON."""
    try:
        return None if written is None else _MEMBERS.decode(written)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def open_list(written: bytes | None) -> list[msgspec.Raw] | None:
    """The items of a list; None where it is none, or no sound JSON."""
    try:
        return None if written is None else _ITEMS.decode(written)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_value(written: bytes | None) -> Any:
    """The whole value; None where it is null, absent, or no sound JSON."""
    try:
        return None if written is None else msgspec.json.decode(written)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def to_json(value: object) -> bytes:
    """A value, or members and items that were opened, as bytes again."""
    return msgspec.json.encode(value)


def write(value: object) -> msgspec.Raw:
    """The same as a member or an item."""
    return msgspec.Raw(to_json(value))


def is_null(written: bytes | None) -> bool:
    """Whether a member is null or absent."""
    return written is None or bytes(written) == b"null"


def is_empty(written: bytes | None) -> bool:
    """Whether a member is null, absent, or holds nothing."""
    if written is None:
        return True
    told = bytes(written)
    return told in _ABSENT or (told[:1] in b"[{" and not told[1:-1].strip())


def is_text(written: bytes | None) -> bool:
    """Whether a member is a string that is not empty."""
    return written is not None and bytes(written).startswith(b'"') and bytes(written) != b'""'


def change_items(written: bytes | None, change: Callable[[Members], Members | None]) -> msgspec.Raw | None:
    """Change the objects of a list.

    Args:
        written: The list.
        change: Gives an object's new members, or None to leave it.

    Returns:
        The new list, or None where nothing changed.
    """
    items = open_list(written) or []
    changed = False
    for place, item in enumerate(items):
        members = open_object(item)
        new = None if members is None else change(members)
        if new is not None:
            items[place] = write(new)
            changed = True
    return write(items) if changed else None
