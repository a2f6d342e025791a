"""The JSON of an answer, whole and streamed."""

import json
import time
from typing import Any

import pytest

from proxy.gateway.answers import Answer, ChatAnswer, TextAnswer
from tests.pace import PATIENCE

PIECES = ["你", "好 ", "world"]


def answer(shape: type[Answer], *, truncated: bool = False) -> Answer:
    return shape(model="x1", pieces=PIECES, truncated=truncated, prompt_tokens=2)


def chunks(events: list[bytes]) -> list[dict[str, Any]]:
    assert events[-1] == b"data: [DONE]\n\n"
    return [json.loads(event.removeprefix(b"data: ")) for event in events[:-1]]


def test_a_whole_chat_answer() -> None:
    asked = answer(ChatAnswer)
    assert asked.whole() == {
        "id": f"chatcmpl-{asked.suffix}",
        "object": "chat.completion",
        "created": pytest.approx(time.time(), abs=PATIENCE),
        "model": "x1",
        "system_fingerprint": "fp_b705f0c291",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "你好 world", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
    }


def test_a_whole_text_answer() -> None:
    whole = answer(TextAnswer, truncated=True).whole()
    assert whole["object"] == "text_completion"
    assert whole["choices"] == [
        {"index": 0, "text": "你好 world", "logprobs": None, "finish_reason": "length"}
    ]


def test_a_chat_stream_opens_with_the_role_and_closes_with_the_reason() -> None:
    asked = answer(ChatAnswer)
    stream = asked.stream(include_usage=False)
    got = chunks(list(stream.events))
    assert [chunk["choices"][0]["delta"] for chunk in got] == [
        {"role": "assistant", "content": ""},
        {"content": "你"},
        {"content": "好 "},
        {"content": "world"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in got] == [None, None, None, None, "stop"]
    assert stream.pieces == range(1, 4)


def test_chunks_carry_the_fields_of_the_flask_article() -> None:
    asked = answer(ChatAnswer)
    got = chunks(list(asked.stream(include_usage=False).events))
    for chunk in got:
        assert chunk.keys() == {"id", "choices", "created", "model", "object", "system_fingerprint"}
        assert chunk["choices"][0].keys() == {"delta", "finish_reason", "index", "logprobs"}
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["id"] == f"chatcmpl-{asked.suffix}"


def test_a_text_stream() -> None:
    stream = answer(TextAnswer, truncated=True).stream(include_usage=False)
    got = chunks(list(stream.events))
    assert [chunk["choices"][0]["text"] for chunk in got] == [*PIECES, ""]
    assert got[-1]["choices"][0]["finish_reason"] == "length"
    assert stream.pieces == range(3)


@pytest.mark.parametrize("shape", [ChatAnswer, TextAnswer])
def test_usage_is_null_until_the_last_chunk(shape: type[Answer]) -> None:
    *before, last = chunks(list(answer(shape).stream(include_usage=True).events))
    assert all(chunk["usage"] is None for chunk in before)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


def test_text_stays_utf8_in_the_stream() -> None:
    events = b"".join(answer(ChatAnswer).stream(include_usage=False).events)
    assert '"content":"你"'.encode() in events
