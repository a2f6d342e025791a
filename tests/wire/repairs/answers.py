"""Whole answers of chats, and how they may be split into the chunks of a stream."""

import itertools
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.wire.repairs.streams import DONE, TEXT, event

Json = dict[str, Any]

_WORDS = TEXT.filter(bool)
_FUNCTION = st.fixed_dictionaries({"name": st.sampled_from(["f", "g"]), "arguments": TEXT})
_CUSTOM = st.fixed_dictionaries({"name": st.sampled_from(["f", "g"]), "input": TEXT})
_CALLS = st.lists(
    st.fixed_dictionaries({"type": st.just("function"), "function": _FUNCTION})
    | st.fixed_dictionaries({"type": st.just("custom"), "custom": _CUSTOM}),
    min_size=1,
    max_size=3,
).map(lambda calls: [{"id": f"call_{place}", **call} for place, call in enumerate(calls)])
_ANNOTATION = st.fixed_dictionaries({"type": st.just("url_citation"), "url_citation": st.just({"url": "u"})})
_LOGPROB = st.fixed_dictionaries({"token": _WORDS, "bytes": st.none() | st.lists(st.integers(0, 255))})
_DETAILS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["reasoning.text", "reasoning.summary"])}, optional={"text": _WORDS}
    ),
    min_size=1,
    max_size=3,
).map(lambda details: [{**detail, "index": place} for place, detail in enumerate(details)])
STANDARD = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": _WORDS},
    optional={
        "refusal": _WORDS,
        "tool_calls": _CALLS.filter(lambda calls: all(call["type"] == "function" for call in calls)),
        "function_call": _FUNCTION,
    },
)
"""Messages that the official SDK joins."""
MESSAGES = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": _WORDS},
    optional={
        "refusal": st.none() | _WORDS,
        "reasoning_content": _WORDS,
        "thinking": _WORDS,
        "tool_calls": _CALLS,
        "function_call": _FUNCTION,
        "annotations": st.lists(_ANNOTATION, min_size=1, max_size=4),
        "audio": st.fixed_dictionaries({"id": st.just("a"), "data": _WORDS, "expires_at": st.integers()}),
        "reasoning_details": _DETAILS,
        "images": st.lists(st.just({"image_url": {"url": "data:"}}), min_size=1, max_size=2),
    },
)
LOGPROBS = st.none() | st.fixed_dictionaries({"content": st.lists(_LOGPROB, min_size=1, max_size=4)})
_CONSTANT = frozenset({"id", "index", "name", "role", "type", "expires_at"})


def split(draw: Callable[[Any], Any], name: str, value: Any) -> list[Any]:
    """Split the value of a member into the values that it has in the chunks."""
    if isinstance(value, str) and name not in _CONSTANT:
        return [value[a:b] for a, b in itertools.pairwise(_cuts(draw, len(value)))]
    if isinstance(value, dict):
        return split_members(draw, value)
    if not isinstance(value, list):
        return [value]
    if name == "tool_calls" or any("index" in item for item in value):
        return [
            [{**part, "index": place}]
            for place, item in enumerate(value)
            for part in _begun(split_members(draw, item))
        ]
    return [value[a:b] for a, b in itertools.pairwise(_cuts(draw, len(value)))]


def split_members(draw: Callable[[Any], Any], members: Json) -> list[Json]:
    """Split an object into parts. The values of each member stay in their order."""
    constant = {name: value for name, value in members.items() if name in _CONSTANT or value is None}
    parts = [constant]
    for name, value in members.items():
        if name not in constant:
            parts += [{name: each} for each in split(draw, name, value)]
    merged = [parts[0]]
    for part in parts[1:]:
        if part.keys() & merged[-1].keys() or draw(st.booleans()):
            merged.append(part)
        else:
            merged[-1] = {**merged[-1], **part}
    return merged


def _begun(parts: list[Json]) -> list[Json]:
    """Join the first two parts if the first holds only constants: the SDK expects more."""
    return [{**parts[0], **parts[1]}, *parts[2:]] if parts[0].keys() <= _CONSTANT and parts[1:] else parts


def _cuts(draw: Callable[[Any], Any], length: int) -> list[int]:
    inner = draw(st.lists(st.integers(0, length), max_size=3))
    return [0, *sorted(inner), length]


@st.composite
def streams(
    draw: Callable[[Any], Any], messages: st.SearchStrategy[Json], *, parts: bool = False
) -> tuple[Json, list[Json]]:
    """Return a whole answer of one or two choices, and its chunks.

    Args:
        draw: Draws a value.
        messages: The messages of the choices.
        parts: Whether the content of some chunks is a list of parts, as Mistral's models stream it.
    """
    head = {"id": "c", "created": 1, "model": "m", "service_tier": "default", "system_fingerprint": "fp"}
    choices, chunks = list[Json](), list[Json]()
    for index, message in enumerate(draw(st.lists(messages, min_size=1, max_size=2))):
        logprobs = draw(LOGPROBS)
        end = "tool_calls" if "tool_calls" in message else "stop"
        choices.append({"index": index, "message": message, "logprobs": logprobs, "finish_reason": end})
        split_message = split_members(draw, message)
        pieces = in_parts(draw, split_message) if parts else split_message
        deltas = [{"delta": delta, "logprobs": None} for delta in pieces]
        if logprobs is not None:
            deltas += [
                {"delta": {}, "logprobs": {"content": part}} for part in split(draw, "", logprobs["content"])
            ]
        deltas.append({"delta": {}, "logprobs": None})
        reasons = [None] * (len(deltas) - 1) + [end]
        chunks += [
            {"index": index, **delta, "finish_reason": reason}
            for delta, reason in zip(deltas, reasons, strict=True)
        ]
    stream = [
        {**head, "object": "chat.completion.chunk", "choices": [choice], "usage": None} for choice in chunks
    ]
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    stream.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    return {**head, "object": "chat.completion", "choices": choices, "usage": usage}, stream


def in_parts(draw: Callable[[Any], Any], deltas: list[Json]) -> list[Json]:
    """Write the reasoning of these deltas, and some of their texts but not all, as lists of parts."""
    moves = draw(st.booleans())
    changed = list[Json]()
    for delta in deltas:
        rest = dict(delta)
        if moves and "reasoning_content" in rest:
            thinking = [{"type": "text", "text": rest.pop("reasoning_content")}]
            changed.append({"content": [{"type": "thinking", "thinking": thinking}]})
        changed.append(rest)
    texts = [delta for delta in changed if delta.get("content") and isinstance(delta["content"], str)]
    for delta in texts[1:] if draw(st.booleans()) else texts[:-1]:
        if draw(st.booleans()):
            delta["content"] = [{"type": "text", "text": delta["content"]}]
    return changed


def written(chunks: list[Json]) -> bytes:
    """Return the stream of these chunks."""
    return b"".join(map(event, chunks)) + DONE
