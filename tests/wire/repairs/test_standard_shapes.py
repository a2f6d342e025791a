"""What is in OpenAI's format already passes byte for byte through every set of repairs."""

import json
from typing import Any

import pytest

from proxy.wire.endpoints import Shape
from proxy.wire.repairs import SETS, Call, StreamRepairer, repair_response, resolve
from tests.wire.repairs.streams import DONE

USAGE = {
    "prompt_tokens": 1,
    "completion_tokens": 1,
    "total_tokens": 2,
    "completion_tokens_details": {"reasoning_tokens": 0},
}
LOGPROBS: dict[str, Any] = {
    "content": [{"token": "a", "logprob": -1e-5, "bytes": None, "top_logprobs": []}],
    "refusal": None,
}
FUNCTION = {"name": "f", "arguments": '{"a": 1.0}'}
CUSTOM = {"id": "call_b", "type": "custom", "custom": {"name": "grep", "input": "error"}}
CALL = {"id": "call_a", "type": "function", "function": FUNCTION}
CITATION = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 1, "url": "u"}}


def choice(delta: object, finish: str | None = None, index: int = 0, logprobs: object = None) -> Any:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def begun(index: int, call: dict[str, Any], name: str, member: str) -> list[Any]:
    """Return the deltas of a tool call: its name, then half of its input each time."""
    text = call[name][member]
    first = {"index": index, **call, name: {**call[name], member: ""}}
    halves = [text[: len(text) // 2], text[len(text) // 2 :]]
    return [
        {"tool_calls": [first]},
        *({"tool_calls": [{"index": index, name: {member: half}}]} for half in halves),
    ]


ROLE = {"role": "assistant", "content": "", "refusal": None}
CALLS = [*begun(0, CALL, "function", "arguments"), *begun(1, {**CALL, "id": "c"}, "function", "arguments")]
STREAMS: dict[str, list[list[Any]]] = {
    "text": [[choice(ROLE)], [choice({"content": "Hi 1.0"})], [choice({}, "stop")]],
    "cut": [[choice({"content": "a"})], [choice({}, "length")]],
    "filtered": [[choice({"content": "a"})], [choice({}, "content_filter")]],
    "refusal": [[choice(ROLE)], [choice({"refusal": "no"})], [choice({}, "stop")]],
    "logprobs": [[choice({"content": "a"}, logprobs=LOGPROBS)], [choice({}, "stop")]],
    "reasoning": [[choice({"reasoning_content": "hm"})], [choice({"content": "a"})], [choice({}, "stop")]],
    "annotations": [[choice({"content": "a"})], [choice({"annotations": [CITATION]})], [choice({}, "stop")]],
    "audio": [
        [choice({"role": "assistant", "audio": {"id": "a", "transcript": "x"}})],
        [choice({"audio": {"data": "AA"}})],
        [choice({"audio": {"expires_at": 1}})],
        [choice({}, "stop")],
    ],
    "several choices": [
        [choice({"content": "a"}), choice({"content": "b"}, index=1)],
        [choice({}, "stop"), choice({"content": "c"}, index=1)],
        [choice({}, "length", index=1)],
    ],
    "parallel tool calls": [[choice(delta)] for delta in CALLS] + [[choice({}, "tool_calls")]],
    "custom tool": [[choice(delta)] for delta in begun(0, CUSTOM, "custom", "input")]
    + [[choice({}, "tool_calls")]],
    "custom tool without input": [
        [choice({"tool_calls": [{"index": 0, **CUSTOM, "custom": {"name": "f", "input": ""}}]})],
        [choice({}, "tool_calls")],
    ],
    "custom tool and function": [
        [choice(delta)]
        for delta in (*begun(0, CUSTOM, "custom", "input"), *begun(1, CALL, "function", "arguments"))
    ]
    + [[choice({}, "tool_calls")]],
    "function call": [
        [choice({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}})],
        [choice({"function_call": {"arguments": "{}"}})],
        [choice({}, "function_call")],
    ],
}
MESSAGES: dict[str, tuple[dict[str, Any], str, str]] = {
    "text": ({"role": "assistant", "content": "a", "refusal": None, "annotations": [CITATION]}, "stop", ""),
    "refusal": ({"role": "assistant", "content": None, "refusal": "no"}, "stop", "fill_content"),
    "audio": ({"role": "assistant", "content": None, "audio": {"id": "a"}}, "stop", "fill_content"),
    "tool call": ({"content": None, "tool_calls": [CALL, CUSTOM]}, "tool_calls", "index_tool_calls"),
    "function call": ({"content": None, "function_call": FUNCTION}, "function_call", ""),
}
"""Each with its finish_reason and with the repair that changes it, as its description says."""


def chunk(choices: list[Any], usage: object) -> dict[str, Any]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    rest = {"service_tier": "default", "system_fingerprint": "fp", "obfuscation": "x"}
    return {**head, **rest, "choices": choices, "usage": usage}


def written(chunks: list[Any], separators: tuple[str, str]) -> bytes:
    lines = [f"data: {json.dumps(each, separators=separators)}\n\n" for each in chunks]
    return "".join(lines).encode() + DONE


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("shape", STREAMS)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["dense", "spaced"])
def test_a_stream_of_a_chat(name: str, shape: str, separators: tuple[str, str]) -> None:
    chunks = [chunk(choices, None) for choices in STREAMS[shape]] + [chunk([], USAGE)]
    stream = written(chunks, separators)
    call = Call(Shape.CHAT, streams=True, usage_requested=True, tools=shape != "function call")
    repairer = StreamRepairer(resolve([name]), call)
    assert repairer.first_error(stream) is None
    assert repairer.feed(stream) + repairer.finish() == stream


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("shape", MESSAGES)
def test_a_whole_response_of_a_chat(name: str, shape: str) -> None:
    message, finish, exception = MESSAGES[shape]
    choices = [
        {"index": index, "message": message, "logprobs": LOGPROBS, "finish_reason": finish}
        for index in range(2)
    ]
    whole = {"id": "c", "object": "chat.completion", "choices": choices, "usage": USAGE}
    body = json.dumps(whole).encode()
    call = Call(Shape.CHAT, tools="tool" in shape)
    repairs = resolve(each for each in SETS[name] if each != exception)
    assert repair_response(repairs, call, body) is body
    if exception in SETS[name]:
        assert repair_response(resolve([name]), call, body) != body


@pytest.mark.parametrize("name", SETS)
def test_a_stream_of_completions_or_of_the_responses_api(name: str) -> None:
    texts: list[Any] = [
        {"id": "c", "choices": [{"index": 0, "text": "error", "logprobs": None, "finish_reason": reason}]}
        for reason in (None, "stop")
    ]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "r", "status": "in_progress", "error": None}},
        {"type": "response.output_text.delta", "delta": "error", "sequence_number": 1},
        {"type": "response.completed", "response": {"id": "r", "status": "completed", "usage": {}}},
    ]
    named = b"".join(b"event: %s\ndata: %s\n\n" % (each["type"].encode(), json.dumps(each).encode())
                     for each in events)  # fmt: skip
    for shape, stream in ((Shape.COMPLETION, written(texts, (",", ":"))), (None, named)):
        repairer = StreamRepairer(resolve([name]), Call(shape, streams=True, usage_requested=True))
        assert repairer.first_error(stream) is None
        assert repairer.feed(stream) + repairer.finish() == stream


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("call", "whole"),
    [
        (
            Call(Shape.COMPLETION),
            {"choices": [{"text": "error", "index": 0, "finish_reason": "stop"}], "usage": USAGE},
        ),
        (
            Call(Shape.EMBEDDINGS, inputs=1),
            {
                "object": "list",
                "data": [{"object": "embedding", "index": 0, "embedding": [0.10, 1e-7]}],
                "usage": {"prompt_tokens": 1, "total_tokens": 1},
            },
        ),
        (
            Call(Shape.RERANK, documents=1),
            {"results": [{"index": 0, "relevance_score": 0.50}], "usage": {"total_tokens": 1}},
        ),
        (Call(Shape.TRANSCRIPTION), {"task": "t", "text": "", "duration": 1.0}),
        (Call(Shape.MODERATION), {"id": "m", "results": [{"flagged": False}]}),
    ],
    ids=["completion", "embeddings", "rerank", "transcription", "moderation"],
)
def test_a_whole_response_of_another_endpoint(name: str, call: Call, whole: object) -> None:
    body = json.dumps(whole).encode()
    assert repair_response(resolve([name]), call, body) is body
