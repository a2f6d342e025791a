"""Read lists of models from upstreams leniently, and write them as strict clients expect them (pure).

https://platform.openai.com/docs/api-reference/models/object. Strict clients reject nulls and unexpected
types. Some read the length of the context, which is not part of OpenAI's API.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

MODELS_MAX: Final = 10_000
"""A longer list is rejected, because each entry takes time in the event loop."""
_CONTEXT_KEYS: Final = ("context_length", "max_model_len", "context_window", "max_context_length")


@dataclass(frozen=True, slots=True)
class ModelEntry:
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
        response = msgspec.json.decode(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    listed = response.get("data", response.get("models")) if isinstance(response, dict) else response
    if not isinstance(listed, list):
        raise ValueError("no list of models")  # noqa: TRY004 - the upstream's error, not the caller's
    if len(listed) > MODELS_MAX:
        raise ValueError("too many models")
    return [*_entries(listed)]


def filter_listing(body: bytes, may_use: Callable[[str], bool]) -> bytes:
    """Drop the models that a caller may not use from an upstream's list.

    The other models, and scalars next to the list, keep their bytes. Objects next to the list are dropped,
    because they may name models.

    Raises:
        ValueError: The body is not a list or an object, or has more than `MODELS_MAX` models.
    """
    try:
        if _begins(body, b"["):
            return msgspec.json.encode(_usable(body, may_use))
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        kept = {
            name: _usable(value, may_use) if _begins(value, b"[") else value
            for name, value in members.items()
            if not _begins(value, b"{")
        }
        return msgspec.json.encode(kept)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _begins(text: bytes | msgspec.Raw, byte: bytes) -> bool:
    return bytes(text).lstrip().startswith(byte)


def _usable(listed: bytes | msgspec.Raw, may_use: Callable[[str], bool]) -> list[msgspec.Raw]:
    """Return the items of a list, unchanged, that name a model which the caller may use."""
    items = msgspec.json.decode(listed, type=list[msgspec.Raw])
    if len(items) > MODELS_MAX:
        raise ValueError("too many models")
    return [
        item for item in items if any(may_use(entry.id) for entry in _entries([msgspec.json.decode(item)]))
    ]


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


def _entries(listed: Iterable[object]) -> Iterator[ModelEntry]:
    for item in listed:
        if isinstance(item, str) and item:
            yield ModelEntry(item)
        elif isinstance(item, Mapping) and isinstance(item.get("id"), str) and item["id"]:
            owner = item.get("owned_by")
            yield ModelEntry(
                item["id"],
                created=_whole(item.get("created")) or 0,
                owned_by=owner if isinstance(owner, str) and owner else "unknown",
                context_length=next((size for key in _CONTEXT_KEYS if (size := _whole(item.get(key)))), None),
            )


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 53:
        return None
    return int(value)
