"""Helpers for tests of streams: write and read chunks, repair a stream, generate streams."""

import itertools
import json
from typing import Any

from hypothesis import strategies as st

from proxy.wire.endpoints import Shape
from proxy.wire.repairs import Call, StreamRepairer, resolve
from proxy.wire.repairs.framing import read_payload, split_events

DONE = b"data: [DONE]\n\n"

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["index", "usage", "delta", "choices", "code", "error", "tools", "data"])
            | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def event(value: object) -> bytes:
    """Return one event with JSON as its data."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def chunk(delta: object, finish_reason: str | None = None, **more: object) -> dict[str, Any]:
    """Return a chunk with one choice."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice], **more}


def repair(
    names: list[str],
    *pieces: bytes,
    shape: Shape = Shape.CHAT,
    usage_requested: bool = False,
) -> bytes:
    """Repair a whole stream with the repairs of these names."""
    repairer = StreamRepairer(resolve(names), Call(shape, usage_requested=usage_requested))
    return b"".join([*map(repairer.feed, pieces), repairer.finish()])


def payloads(stream: bytes) -> list[Any]:
    """Return the JSON of a stream's events."""
    said = [read_payload(block) for block in split_events(stream)]
    return [json.loads(payload) for payload in said if payload not in {None, b"[DONE]"} and payload]


def cut(events: list[bytes], at: list[int]) -> list[bytes]:
    """Split a stream into pieces of one or more events."""
    places = sorted({0, len(events), *(place % (len(events) + 1) for place in at)})
    return [b"".join(events[a:b]) for a, b in itertools.pairwise(places)]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_CALLS = st.lists(
    st.fixed_dictionaries(
        {"function": st.fixed_dictionaries({"arguments": TEXT}, optional={"name": TEXT | st.none()})},
        optional={
            "index": st.integers(0, 3) | st.none(),
            "id": st.sampled_from(["", "call_a", "call_b"]) | st.none(),
        },
    ),
    max_size=3,
)
_USAGE = st.none() | st.just({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})
_CHOICE: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"index": st.integers(0, 1)},
    optional={
        "delta": st.none()
        | st.fixed_dictionaries(
            {}, optional={"content": TEXT | st.none(), "reasoning_content": TEXT, "tool_calls": _CALLS}
        ),
        "finish_reason": st.sampled_from([None, "stop", "length", "tool_calls"]),
        "logprobs": st.none() | st.just({"content": []}),
    },
)
_CHOICES = st.lists(_CHOICE, max_size=2, unique_by=lambda choice: choice["index"])
CHUNKS = st.fixed_dictionaries({}, optional={"choices": _CHOICES, "usage": _USAGE, "id": TEXT})
EVENTS = st.lists(
    CHUNKS.map(event) | st.sampled_from([b": keep-alive\n\n", b"event: ping\n\n", b"id: 1\ndata: {}\n\n"]),
    max_size=8,
).map(lambda events: [*events, DONE])
