"""Repairs of the usage that responses and chunks report."""

from collections.abc import Sequence
from typing import Final

import msgspec

from proxy.wire.endpoints import Shape
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.chat import open_choices
from proxy.wire.repairs.repair import Repair, StreamState, on_chunks, on_responses
from proxy.wire.repairs.shallow_json import (
    NULL,
    Members,
    is_null,
    is_text,
    open_list,
    open_object,
    read_value,
    write,
)
from proxy.wire.repairs.vendor_errors import holds_error, read_vendor_error

_PROMPT, _COMPLETION, _TOTAL = "prompt_tokens", "completion_tokens", "total_tokens"
USAGE_OF_CHAT: Final = (_PROMPT, _COMPLETION, _TOTAL)
USAGE_OF_EMBEDDINGS: Final = (_PROMPT, _TOTAL)
_OTHER_NAMES: Final = {_PROMPT: "input_tokens", _COMPLETION: "output_tokens"}


@on_responses(Shape.CHAT, Shape.COMPLETION)
def fill_response_usage(response: Members, _: Call) -> Members | None:
    """Add the usage that a response lacks."""
    if is_null(response.get("choices")):
        return None
    return fill_usage(response, USAGE_OF_CHAT)


@on_chunks(Shape.CHAT, Shape.COMPLETION)
def fill_chunk_usage(chunk: Members, _: StreamState) -> Members | None:
    """Correct the numbers in the usage of a chunk."""
    if not open_object(chunk.get("usage")):
        return None
    return fill_usage(chunk, USAGE_OF_CHAT)


@on_responses(Shape.EMBEDDINGS)
def fill_embedding_usage(response: Members, _: Call) -> Members | None:
    """Add the usage that a response lacks."""
    return None if is_null(response.get("data")) else fill_usage(response, USAGE_OF_EMBEDDINGS)


FILL_USAGE: Final = Repair(
    "fill_usage",
    "Writes the usage as whole numbers if it is missing, null, a string or under other names.",
    fill_response_usage,
    fill_chunk_usage,
    fill_embedding_usage,
    clients=("RAGFlow, for embeddings and vision", "Dify", "Cherry Studio, for embeddings"),
    sets=("ragflow", "dify", "cherry_studio"),
)


def fill_usage(response: Members, names: Sequence[str]) -> Members | None:
    """Write the counts of these names as whole numbers, and a missing total as the sum of the others."""
    written = response.get("usage")
    usage = open_object(written) or {}
    counts = {name: _count(usage.get(name)) for name in names}
    if all(count is not None and _is_count(usage[name]) for name, count in counts.items()):
        return None
    for name, other in _OTHER_NAMES.items():
        if name in counts and counts[name] is None:
            counts[name] = _count(usage.get(other))
    parts = (counts.get(_PROMPT) or 0) + (counts.get(_COMPLETION) or 0)
    filled = {
        name: usage[name]
        if name in usage and _is_count(usage[name])
        else write(parts if name == _TOTAL and count is None else count or 0)
        for name, count in counts.items()
    }
    return {**response, "usage": write({**usage, **filled})}


def _is_count(written: msgspec.Raw) -> bool:
    return bytes(written).isdigit()


def _count(written: msgspec.Raw | None) -> int | None:
    """Read a number of tokens, also one written as a string or a fraction; None if there is none."""
    value = read_value(written)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 1 << 53 else None


@on_chunks(Shape.CHAT, Shape.COMPLETION)
def usage_once(chunk: Members, state: StreamState) -> Members | None:
    """Remove the usage from every chunk but the last.

    For a caller who asked for it, that is a chunk without choices. If the upstream sends none, the withheld
    usage ends the stream. Other callers expect no such chunk, and get the usage with the first finish_reason.
    """
    if not open_object(chunk.get("usage")):
        return None
    choices = open_choices(chunk)
    if state.call.usage_requested:
        state.withheld_usage = {**chunk, "choices": write([])} if choices else None
        return {**chunk, "usage": NULL} if choices else None
    if not state.usage_sent:
        state.usage_sent = any(is_text(choice.get("finish_reason")) for choice in choices)
        if state.usage_sent or not choices:
            return None
    return {**chunk, "usage": NULL}


USAGE_ONCE: Final = Repair(
    "usage_once",
    "Keeps the usage only on the last chunk if the upstream writes it on several.",
    usage_once,
    clients=("RAGFlow, which adds them up", "Continue, which loses the text of such a chunk"),
    sets=("ragflow", "continue"),
)


@on_chunks(Shape.CHAT, Shape.COMPLETION)
def drop_unasked_chunks(chunk: Members, state: StreamState) -> Members | list[Members] | None:
    """Drop a chunk without choices, unless it is an error or holds the usage that the caller asked for."""
    choices = chunk.get("choices")
    if not (is_null(choices) or open_list(choices) == []):
        return None
    if holds_error(chunk) or read_vendor_error(chunk) is not None:
        return None
    if state.call.usage_requested and not is_null(choices):
        return None
    has_usage = state.call.usage_requested and open_object(chunk.get("usage")) is not None
    return {**chunk, "choices": write([])} if has_usage else []


DROP_UNASKED_CHUNKS: Final = Repair(
    "drop_unasked_chunks",
    "Drops chunks without choices, such as pings, but keeps the usage that the client asked for.",
    drop_unasked_chunks,
    clients=("RAGFlow, for vision", "Dify"),
    sets=("ragflow", "dify"),
)


REPAIRS: Final = (FILL_USAGE, USAGE_ONCE, DROP_UNASKED_CHUNKS)
