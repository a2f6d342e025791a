"""A stream instead of a whole response, and the other way round."""

import json
from typing import Any

import pytest

from proxy.errors import BadResponse, InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.repairs import Call, EmbeddedError
from proxy.wire.repairs.conversions import AnswerJoiner, answer_to_stream, lines_to_stream
from tests.wire.repairs.streams import DONE, chunk, event, payloads

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
CALLS = [{"id": f"call_{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in "ab"]
CHAT = Call(Shape.CHAT, streams=True, usage_requested=True)


def answer(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion", "choices": [choice], "usage": USAGE}


def stream_to_answer(events: bytes, call: Call) -> bytes | EmbeddedError:
    """Join a stream whose events arrive together."""
    joiner = AnswerJoiner(call)
    return joiner.add(events) or joiner.close()


@pytest.mark.parametrize(
    ("message", "finish"),
    [
        ({"role": "assistant", "content": "你好"}, "stop"),
        ({"role": "assistant", "content": "a", "reasoning_content": "hm"}, "length"),
        ({"role": "assistant", "content": None, "tool_calls": CALLS}, "tool_calls"),
    ],
)
def test_a_response_as_a_stream_joins_to_the_same_response(message: dict[str, Any], finish: str) -> None:
    stream = answer_to_stream(json.dumps(answer(message, finish)).encode(), CHAT)
    assert stream is not None
    assert stream.endswith(DONE)
    joined = stream_to_answer(stream, CHAT)
    assert isinstance(joined, bytes)
    assert json.loads(joined) == answer(message, finish)


def test_usage_is_sent_only_if_it_was_asked_for() -> None:
    body = json.dumps(answer({"content": "a"})).encode()
    asked, unasked = (answer_to_stream(body, call) for call in (CHAT, Call(Shape.CHAT, streams=True)))
    assert payloads(asked or b"")[-1]["usage"] == USAGE
    assert not any(each.get("usage") for each in payloads(unasked or b""))


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'{"choices": []}', b'{"choices": null}', b"<html>"])
def test_a_body_without_choices_is_not_converted(body: bytes) -> None:
    assert answer_to_stream(body, CHAT) is None


def test_a_completion_is_streamed_as_text() -> None:
    body = b'{"choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}]}'
    call = Call(Shape.COMPLETION, streams=True)
    stream = answer_to_stream(body, call)
    joined = stream_to_answer(stream or b"", call)
    assert isinstance(joined, bytes)
    assert json.loads(joined)["choices"] == [{"index": 0, "text": "Hi", "finish_reason": "stop"}]


def test_lines_of_chunks_become_events() -> None:
    lines = [json.dumps(chunk({"content": word})).encode() for word in "ab"]
    expected = b"".join(b"data: " + line + b"\n\n" for line in lines) + DONE
    assert lines_to_stream(b"\n".join(lines)) == expected
    assert lines_to_stream(b"\r\n".join([*lines, b"[DONE]"])) == expected
    assert lines_to_stream(b"\xef\xbb\xbf" + b"\n".join(lines)) == expected
    for body in (b"", b"\n", b"<html>\n</html>", b'{"a": 1}\n{"b": 2}', lines[0]):
        assert lines_to_stream(body) is None


def test_text_that_only_python_reads_is_joined() -> None:
    """Gateways in JavaScript cut texts inside a character, and write each half as an escape."""
    whole = chunk({"content": "a😀b"})
    first, second = (json.dumps(chunk({"content": half})) for half in ("a\ud83d", "\ude00b"))
    stream = b"".join(f"data: {each}\n\n".encode() for each in (first, second))
    lasts = [{**chunk({}, "stop"), "created": float("nan")}]
    joined = stream_to_answer(stream + b"".join(map(event, lasts)), CHAT)
    assert isinstance(joined, bytes)
    message = json.loads(joined)["choices"][0]["message"]
    assert message["content"] == whole["choices"][0]["delta"]["content"]
    assert json.loads(joined)["choices"][0]["finish_reason"] == "stop"


def test_parts_of_tool_calls_are_joined() -> None:
    parts = [
        {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}},
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"index": 1, "function": {"arguments": "}"}},
    ]
    stream = b"".join(event(chunk({"tool_calls": [part]})) for part in parts) + event(chunk({}, "tool_calls"))
    joined = stream_to_answer(stream, CHAT)
    assert isinstance(joined, bytes)
    message = json.loads(joined)["choices"][0]["message"]
    assert message["content"] is None
    assert [(call["id"], call["function"]["arguments"]) for call in message["tool_calls"]] == [
        ("a", "{}"),
        ("b", "{}"),
    ]


def test_a_stream_that_was_cut_or_failed_is_not_converted() -> None:
    words = event(chunk({"content": "Hi"}))
    with pytest.raises(BadResponse) as cut:
        stream_to_answer(words, CHAT)
    assert "X-Should-Retry" not in cut.value.headers  # After a broken connection a retry may help.
    with pytest.raises(InvalidResponse):
        stream_to_answer(DONE, CHAT)
    failed = stream_to_answer(words + event({"error": {"message": "boom"}}), CHAT)
    assert isinstance(failed, EmbeddedError)
    assert failed.message == "boom"


def test_long_streams_join_in_linear_time() -> None:
    """Joining a hundred thousand pieces one by one would copy gigabytes."""
    piece = event(chunk({"content": "x" * 50}))
    joined = stream_to_answer(piece * 100_000 + event(chunk({}, "stop")), CHAT)
    assert isinstance(joined, bytes)
    assert len(json.loads(joined)["choices"][0]["message"]["content"]) == 5_000_000
