"""Repairs of the chunks of a streamed chat answer."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from proxy.wire.endpoints import Shape
from proxy.wire.repairs.chat_answers import has_index, listed_calls
from proxy.wire.repairs.shallow_json import (
    NULL,
    Members,
    change_items,
    is_null,
    is_text,
    open_list,
    open_object,
    read_value,
    write,
)
from proxy.wire.repairs.vendor_errors import read_vendor_error

_FIRST: Final = msgspec.Raw(b"0")


class CallPlaces:
    """Where the tool calls of one choice belong, as far as its chunks told."""

    def __init__(self) -> None:
        self._by_id: dict[bytes, int] = {}
        self._next = 0
        self._last = 0

    def place(self, call: Members) -> Members | None:
        """The call with its index; None where it has one.

        A call that is known by its id goes on; another id, or a name, begins the next; what has neither goes
        on with the last.
        """
        told = has_index(call)
        index = read_value(call["index"]) if told else self._find(call)
        if not isinstance(index, int):
            return None
        if is_text(call.get("id")):
            self._by_id[bytes(call["id"])] = index
        self._last = index
        self._next = max(self._next, index + 1)
        return None if told else {**call, "index": write(index)}

    def _find(self, call: Members) -> int:
        known = self._by_id.get(bytes(call.get("id", NULL)))
        if known is not None:
            return known
        function = open_object(call.get("function")) or {}
        return self._next if is_text(call.get("id")) or is_text(function.get("name")) else self._last


@dataclass
class StreamMemory:
    """What the repairs of one stream remember from chunk to chunk."""

    usage_asked: bool
    places: dict[bytes, CallPlaces] = field(default_factory=dict)
    owed: Members | None = None
    """The chunk of usage that the client has still to get."""


class ChunkRepair(NamedTuple):
    """One repair of chunks."""

    shapes: frozenset[Shape]
    sign: re.Pattern[bytes]
    """Without it a chunk is not even parsed."""
    change: Callable[[Members, StreamMemory], list[Members] | None]
    """Gives the chunks that take its place, or None to leave it."""


def fill_delta(chunk: Members, _: StreamMemory) -> list[Members] | None:
    """`{}` for a delta that is null."""
    return _change_choices(chunk, _fill_choice)


def index_tool_calls(chunk: Members, memory: StreamMemory) -> list[Members] | None:
    """An index for every tool call; a lone one becomes a list."""
    return _change_choices(chunk, lambda choice: _index_choice(choice, memory))


def split_finish(chunk: Members, _: StreamMemory) -> list[Members] | None:
    """Two chunks for one that has both content and a finish_reason; usage goes with the end."""
    content = change_items(chunk.get("choices"), _without_finish)
    if content is None:
        return None
    ended = [_finish_alone(choice) for choice in _choices(chunk) if _without_finish(choice) is not None]
    first = {**chunk, "choices": content}
    if "usage" in chunk:
        first["usage"] = NULL
    return [first, {**chunk, "choices": write(ended)}]


def usage_once(chunk: Members, memory: StreamMemory) -> list[Members] | None:
    """Null for the usage of a chunk that is not the last; what no later chunk tells is owed to who asked."""
    if open_object(chunk.get("usage")) is None:
        return None
    choices = _choices(chunk)
    if not choices or any(is_text(choice.get("finish_reason")) for choice in choices):
        memory.owed = None
        return None
    if memory.usage_asked:
        memory.owed = {**chunk, "choices": write([])}
    return [{**chunk, "usage": NULL}]


def drop_unasked_chunks(chunk: Members, memory: StreamMemory) -> list[Members] | None:
    """Nothing for a chunk without choices, if it is no error and its usage was not asked for."""
    choices = chunk.get("choices")
    if memory.usage_asked or not (is_null(choices) or open_list(choices) == []):
        return None
    if "choices" not in chunk and open_object(chunk.get("usage")) is None:
        return None  # something else than a chunk
    if not is_null(chunk.get("error")) or read_vendor_error(chunk) is not None:
        return None
    return []


def _choices(chunk: Members) -> list[Members]:
    return [
        choice
        for written in open_list(chunk.get("choices")) or ()
        if (choice := open_object(written)) is not None
    ]


def _change_choices(chunk: Members, change: Callable[[Members], Members | None]) -> list[Members] | None:
    choices = change_items(chunk.get("choices"), change)
    return None if choices is None else [{**chunk, "choices": choices}]


def _fill_choice(choice: Members) -> Members | None:
    return {**choice, "delta": write({})} if "delta" in choice and is_null(choice["delta"]) else None


def _index_choice(choice: Members, memory: StreamMemory) -> Members | None:
    delta = open_object(choice.get("delta"))
    if delta is None or is_null(delta.get("tool_calls")):
        return None
    calls, changed = listed_calls(delta["tool_calls"])
    places = memory.places.setdefault(bytes(choice.get("index", _FIRST)), CallPlaces())
    for position, written in enumerate(calls):
        call = open_object(written)
        placed = None if call is None else places.place(call)
        if placed is not None:
            calls[position], changed = write(placed), True
    return {**choice, "delta": write({**delta, "tool_calls": write(calls)})} if changed else None


def _without_finish(choice: Members) -> Members | None:
    delta = open_object(choice.get("delta"))
    if delta is None or not is_text(delta.get("content")) or not is_text(choice.get("finish_reason")):
        return None
    return {**choice, "finish_reason": NULL}


def _finish_alone(choice: Members) -> Members:
    end = {**choice, "delta": write({})}
    if "logprobs" in choice:
        end["logprobs"] = NULL  # they belong to the content
    return end


_CHAT: Final = frozenset({Shape.CHAT})
_WITH_USAGE: Final = _CHAT | {Shape.COMPLETION}
CHUNK_REPAIRS: Final = {
    "fill_delta": ChunkRepair(_CHAT, re.compile(rb'"delta"\s*:\s*null'), fill_delta),
    "index_tool_calls": ChunkRepair(_CHAT, re.compile(rb'"tool_calls"\s*:\s*[\[{]'), index_tool_calls),
    "split_finish": ChunkRepair(_CHAT, re.compile(rb'"finish_reason"\s*:\s*"[^"]'), split_finish),
    "usage_once": ChunkRepair(_WITH_USAGE, re.compile(rb'"usage"\s*:\s*\{'), usage_once),
    "drop_unasked_chunks": ChunkRepair(
        _WITH_USAGE,
        re.compile(rb'"choices"\s*:\s*(?:\[\s*\]|null)|"usage"\s*:\s*\{'),
        drop_unasked_chunks,
    ),
}
"""By name; they are done in the order of the catalogue."""
