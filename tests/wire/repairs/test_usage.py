"""The usage of responses and chunks: whole numbers, reported once, and only to those who want it."""

import json
from typing import Any

import pytest

from proxy.wire.endpoints import Shape
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.repair import StreamState
from proxy.wire.repairs.shallow_json import Members, open_object, to_json
from proxy.wire.repairs.usage import (
    USAGE_OF_CHAT,
    USAGE_OF_EMBEDDINGS,
    drop_unasked_chunks,
    fill_usage,
    usage_once,
)

TEXT = {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}
LAST = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def members(value: dict[str, Any]) -> Members:
    """An object as repairs see it."""
    return open_object(json.dumps(value).encode()) or {}


def state(*, usage_requested: bool = False) -> StreamState:
    """The state of a stream."""
    return StreamState(Call(Shape.CHAT, streams=True, usage_requested=usage_requested))


@pytest.mark.parametrize(
    ("usage", "filled"),
    [
        (None, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
        ({"prompt_tokens": "3", "completion_tokens": 2.0}, USAGE),
        ({"input_tokens": 3, "output_tokens": 2}, {"input_tokens": 3, "output_tokens": 2, **USAGE}),
        ({**USAGE, "total_tokens": None}, USAGE),
        ({**USAGE, "total_tokens": True}, USAGE),
        ({**USAGE, "prompt_tokens": -1}, {**USAGE, "prompt_tokens": 0}),
        ({**USAGE, "prompt_tokens": 1e300}, {**USAGE, "prompt_tokens": 0}),
    ],
)
def test_counts_become_whole_numbers(usage: object, filled: dict[str, int]) -> None:
    response = fill_usage(members({"usage": usage}), USAGE_OF_CHAT)
    assert response is not None
    assert json.loads(to_json(response))["usage"] == filled


def test_a_valid_usage_does_not_change() -> None:
    assert fill_usage(members({"usage": USAGE}), USAGE_OF_CHAT) is None
    sound = {"prompt_tokens": 3, "total_tokens": 3, "more": [1]}
    assert fill_usage(members({"usage": sound}), USAGE_OF_EMBEDDINGS) is None


def test_only_the_last_chunk_keeps_the_usage() -> None:
    shared = state()
    changed = usage_once.change(members({**TEXT, "usage": USAGE}), shared)
    assert changed is not None
    assert json.loads(to_json(changed)) == {**TEXT, "usage": None}
    assert shared.withheld_usage is None
    assert usage_once.change(members({**LAST, "usage": USAGE}), shared) is None
    changed = usage_once.change(members({"choices": [], "usage": USAGE}), shared)
    assert changed is not None
    assert json.loads(to_json(changed)) == {"choices": [], "usage": None}


def test_a_withheld_usage_waits_for_a_caller_who_wants_it() -> None:
    shared = state(usage_requested=True)
    usage_once.change(members({**TEXT, "usage": USAGE}), shared)
    assert shared.withheld_usage is not None
    assert json.loads(to_json(shared.withheld_usage)) == {"choices": [], "usage": USAGE}
    usage_once.change(members({**LAST, "usage": USAGE}), shared)
    assert shared.withheld_usage is not None
    assert usage_once.change(members({"choices": [], "usage": USAGE}), shared) is None
    assert shared.withheld_usage is None


@pytest.mark.parametrize(
    ("chunk", "usage_requested", "outcome"),
    [
        (TEXT, False, None),
        ({"choices": []}, False, []),
        ({"choices": None, "usage": USAGE}, False, []),
        ({"choices": [], "usage": USAGE}, False, []),
        ({"choices": [], "usage": USAGE}, True, None),
        ({"usage": USAGE}, True, {"choices": [], "usage": USAGE}),
        ({"choices": [], "error": {"message": "no"}}, False, None),
    ],
)
def test_chunks_without_choices_are_dropped_but_no_error_and_no_wanted_usage(
    chunk: dict[str, Any], outcome: object, *, usage_requested: bool
) -> None:
    kept = drop_unasked_chunks.change(members(chunk), state(usage_requested=usage_requested))
    assert (kept if kept is None or kept == [] else json.loads(to_json(kept))) == outcome
