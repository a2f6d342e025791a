"""Read lists of models from upstreams leniently, and write them as strict clients expect them (pure).

https://platform.openai.com/docs/api-reference/models/object. Strict clients reject nulls and unexpected
types. Some read the length of the context, which is not part of OpenAI's API.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from proxy.wire.repairs.shallow_json import (
    TooManyItems,
    first_byte,
    open_list,
    open_object,
    read_value,
    to_json,
)

MODELS_MAX: Final = 10_000
"""A longer list is rejected, because each entry takes time in the event loop."""
_CONTEXT_KEYS: Final = ("context_length", "max_model_len", "context_window", "max_context_length")


class ModelEntry(msgspec.Struct, frozen=True):
    """One model. `created` is in seconds since the epoch, `context_length` in tokens."""

    id: str
    created: int = 0
    owned_by: str = "unknown"
    context_length: int | None = None

    def as_json(self) -> dict[str, object]:
        """Return the entry without nulls, and with the context under each name that clients read."""
        entry: dict[str, object] = {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": self.owned_by,
        }
        if self.context_length is not None:
            entry |= {"context_length": self.context_length, "max_model_len": self.context_length}
        return entry


def read_entries(body: bytes) -> list[ModelEntry]:
    """Read the models in an upstream's response: `{"data": [...]}`, or a list, of objects or of names.

    Raises:
        ValueError: The body is not a list of models, or has more than `MODELS_MAX`.
    """
    try:
        response = open_object(body)
        listed = body if response is None else response.get("data", response.get("models"))
        items = open_list(listed, MODELS_MAX)
        if items is None:
            raise ValueError("no list of models")
        return [entry for item in items if (entry := _entry(item)) is not None]
    except TooManyItems:
        raise ValueError("too many models") from None


def filter_listing(body: bytes, may_use: Callable[[str], bool]) -> bytes:
    """Drop the models that a caller may not use from an upstream's list.

    The other models, and scalars next to the list, keep their bytes. Objects next to the list are dropped,
    because they may name models.

    Raises:
        ValueError: The body is not a list or an object, or has more than `MODELS_MAX` models.
    """
    try:
        members = open_object(body)
        if members is None:
            return to_json(_usable(body, may_use))
        kept = {
            name: _usable(value, may_use) if first_byte(value) == b"[" else value
            for name, value in members.items()
            if first_byte(value) != b"{"
        }
        return to_json(kept)
    except TooManyItems:
        raise ValueError("too many models") from None


def _usable(listed: bytes | msgspec.Raw, may_use: Callable[[str], bool]) -> list[msgspec.Raw]:
    """Return the items of a list, unchanged, that name a model which the caller may use."""
    items = open_list(listed, MODELS_MAX)
    if items is None:
        raise ValueError("no list of models")
    return [item for item in items if (entry := _entry(item)) is not None and may_use(entry.id)]


def merge(lists: Iterable[Iterable[ModelEntry]]) -> list[ModelEntry]:
    """Merge lists. The first entry of a model counts; a later one only adds a missing context length."""
    found: dict[str, ModelEntry] = {}
    for entry in (entry for entries in lists for entry in entries):
        known = found.get(entry.id)
        if known is None:
            found[entry.id] = entry
        elif known.context_length is None and entry.context_length is not None:
            found[entry.id] = ModelEntry(known.id, known.created, known.owned_by, entry.context_length)
    return [*found.values()]


def listing(entries: Iterable[ModelEntry]) -> bytes:
    """Encode the response to `GET /v1/models`."""
    return msgspec.json.encode({"object": "list", "data": [entry.as_json() for entry in entries]})


def single(entry: ModelEntry) -> bytes:
    """Encode the response to `GET /v1/models/{id}`."""
    return msgspec.json.encode(entry.as_json())


def _entry(item: msgspec.Raw) -> ModelEntry | None:
    members = open_object(item)
    if members is None:
        name = read_value(item) if first_byte(item) == b'"' else None
        return ModelEntry(name) if isinstance(name, str) and name else None
    name, owner = read_value(members.get("id")), read_value(members.get("owned_by"))
    if not isinstance(name, str) or not name:
        return None
    sizes = (_whole(read_value(members.get(key))) for key in _CONTEXT_KEYS)
    return ModelEntry(
        name,
        created=_whole(read_value(members.get("created"))) or 0,
        owned_by=owner if isinstance(owner, str) and owner else "unknown",
        context_length=next(filter(None, sizes), None),
    )


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 53:
        return None
    return int(value)
