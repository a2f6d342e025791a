"""A stream instead of a whole response, and the other way round."""

import json
from typing import Any

import pytest
from hypothesis import given
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from proxy.errors import BadResponse, InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.repairs import Call, EmbeddedError
from proxy.wire.repairs.conversions import AnswerJoiner, answer_to_stream, lines_to_stream
from proxy.wire.repairs.framing import LINES_MAX
from proxy.wire.repairs.shallow_json import ITEMS_MAX, TooManyItems
from tests.linear_time import KIB, assert_bounded
from tests.wire.repairs.answers import MESSAGES, STANDARD, Json, streams, written
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


def joined(events: bytes) -> bytes:
    """Join a stream that holds no error."""
    whole = stream_to_answer(events, CHAT)
    assert isinstance(whole, bytes)
    return whole


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
    assert json.loads(joined(stream)) == answer(message, finish)


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
    whole = stream_to_answer(stream or b"", call)
    assert isinstance(whole, bytes)
    assert json.loads(whole)["choices"] == [{"index": 0, "text": "Hi", "finish_reason": "stop"}]


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
    (choice,) = json.loads(joined(stream + b"".join(map(event, lasts))))["choices"]
    assert choice["message"]["content"] == whole["choices"][0]["delta"]["content"]
    assert choice["finish_reason"] == "stop"


def test_parts_of_tool_calls_are_joined() -> None:
    parts = [
        {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}},
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"index": 1, "function": {"arguments": "}"}},
    ]
    stream = b"".join(event(chunk({"tool_calls": [part]})) for part in parts) + event(chunk({}, "tool_calls"))
    message = json.loads(joined(stream))["choices"][0]["message"]
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
    whole = joined(piece * 100_000 + event(chunk({}, "stop")))
    assert len(json.loads(whole)["choices"][0]["message"]["content"]) == 5_000_000


# --- any answer, split in any way


@given(streams(MESSAGES) | streams(MESSAGES, parts=True))
def test_the_chunks_of_any_answer_join_to_the_answer(drawn: tuple[Json, list[Json]]) -> None:
    whole, chunks = drawn
    assert json.loads(joined(written(chunks))) == whole


@given(streams(STANDARD))
def test_chunks_join_as_the_official_sdk_joins_them(drawn: tuple[Json, list[Json]]) -> None:
    _, chunks = drawn
    state = ChatCompletionStreamState()
    for each in chunks:
        state.handle_chunk(ChatCompletionChunk.construct(**each))
    theirs: Json = state.current_completion_snapshot.to_dict(mode="json")
    ours = json.loads(joined(written(chunks)))
    assert ours["usage"] == theirs["usage"]
    for our, their in zip(ours["choices"], theirs["choices"], strict=True):
        for call in their["message"].get("tool_calls") or ():
            call.pop("index", None)
            del call["function"]["parsed_arguments"]
        names = ("role", "content", "refusal", "tool_calls", "function_call")
        assert {name: our["message"].get(name) for name in names} == {
            name: their["message"].get(name) for name in names
        }
        assert our["finish_reason"] == their["finish_reason"]
        assert (our["logprobs"] or {}).get("content") == (their.get("logprobs") or {}).get("content")


def test_a_function_call_is_joined() -> None:
    parts = [{"name": "f", "arguments": ""}, {"arguments": '{"city":'}, {"arguments": '"Paris"}'}]
    stream = b"".join(event(chunk({"function_call": part})) for part in parts) + DONE
    (choice,) = json.loads(joined(stream))["choices"]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"city":"Paris"}'}
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "function_call"


def test_tool_calls_without_an_index_are_not_mixed() -> None:
    parts = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":'}},
        {"function": {"arguments": "1}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"y":2}'}},
    ]
    stream = b"".join(event(chunk({"tool_calls": [part]})) for part in parts) + DONE
    calls = json.loads(joined(stream))["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]) for call in calls] == [
        ("a", {"name": "f", "arguments": '{"x":1}'}),
        ("b", {"name": "g", "arguments": '{"y":2}'}),
    ]


def test_tool_calls_with_the_same_index_and_no_id_are_not_mixed() -> None:
    functions = [{"name": name, "arguments": json.dumps({name: 1})} for name in "fg"]
    calls = [{"index": 0, "function": function} for function in functions]
    message = json.loads(joined(event(chunk({"tool_calls": calls})) + DONE))["choices"][0]["message"]
    assert [call["function"] for call in message["tool_calls"]] == functions


def test_a_single_tool_call_without_a_list_is_joined() -> None:
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    message = json.loads(joined(event(chunk({"tool_calls": call})) + DONE))["choices"][0]["message"]
    assert message["tool_calls"] == [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize("content", ['"a"', '"\\ud83d"'], ids=["strict", "half a character"])
def test_numbers_and_texts_keep_their_spelling(content: str) -> None:
    numbers = '"created": 1e3, "x": 1.10, "y": 1e400, "z": 0.1000000000000000055511151231257827'
    first = f'{{{numbers}, "choices": [{{"index": 0, "delta": {{"content": {content}}}}}]}}'
    last = '{"choices": [{"index": 0, "delta": {"content": "\\ude00\\u00e9"}, "finish_reason": "stop"}]}'
    whole = joined(f"data: {first}\n\ndata: {last}\n\n".encode())
    assert whole.startswith(b"{" + numbers.replace(": ", ":").replace(", ", ",").encode())
    assert content[1:-1].encode() + rb"\ude00\u00e9" in whole


def test_token_ids_are_joined_and_members_of_streams_are_dropped() -> None:
    parts = [{"index": 0, "delta": {"content": "a"}, "token_ids": [ids]} for ids in (5, 5, 7)]
    stream = b"".join(event({"choices": [part], "usage": None, "obfuscation": "x"}) for part in parts) + DONE
    whole = json.loads(joined(stream))
    assert whole["choices"][0]["token_ids"] == [5, 5, 7]
    assert not {"usage", "obfuscation"} & whole.keys()


def test_only_an_event_is_an_end_marker() -> None:
    with pytest.raises(BadResponse):
        joined(event(chunk({"content": "data: [DONE]"})))


def test_choices_whose_index_is_written_as_a_fraction_are_not_mixed() -> None:
    parts = [
        {"index": index, "delta": {"content": text}}
        for text, index in zip("abcd", (0.0, 1.0) * 2, strict=True)
    ]
    last = [{"index": index, "delta": {}, "finish_reason": "stop"} for index in (0.0, 1.0)]
    whole = joined(b"".join(event({"choices": [part]}) for part in (*parts, *last)))
    assert [each["message"]["content"] for each in json.loads(whole)["choices"]] == ["ac", "bd"]


def test_choices_without_an_index_have_that_of_their_position() -> None:
    ends = [{"delta": {"content": text}, "finish_reason": "stop"} for text in "AB"]
    choices = json.loads(joined(event({"choices": ends}) + DONE))["choices"]
    assert [(each["index"], each["message"]["content"]) for each in choices] == [(0, "A"), (1, "B")]
    bare = [{name: value for name, value in each.items() if name != "index"} for each in choices]
    stream = answer_to_stream(json.dumps({"choices": bare}).encode(), CHAT) or b""
    assert [[part["index"] for part in each["choices"]] for each in payloads(stream)] == [[0, 1], [0, 1]]
    assert json.loads(joined(stream))["choices"] == choices


def test_usage_in_a_choice_becomes_that_of_the_response() -> None:
    """Moonshot writes it into the last chunk of each choice."""
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]}
    stream = event(chunk({"content": "a"})) + event(last)
    assert json.loads(joined(stream + DONE))["usage"] == USAGE
    total = {**USAGE, "total_tokens": 99}
    assert json.loads(joined(stream + event({"choices": [], "usage": total}) + DONE))["usage"] == total


def test_an_event_of_too_many_choices_is_an_error() -> None:
    with pytest.raises(InvalidResponse):
        joined(event({"choices": [{}] * (ITEMS_MAX + 1)}))


_TEXT = b'"choices": [{"index": 0, "delta": {"content": "lost"}}]'
UNREADABLE = {
    "too many comments": b": c\n" * (LINES_MAX + 1) + b"data: {%b}\n\n" % _TEXT,
    "too many data lines": b"data: {\n" + b"data: \n" * LINES_MAX + b"data: %b}\n\n" % _TEXT,
    "cut JSON": b"data: {%b\n\n" % _TEXT,
    "two objects": b"data: {%b}\ndata: {%b}\n\n" % (_TEXT, _TEXT),
    "a list": b"data: [{%b}]\n\n" % _TEXT,
    "text": b"data: lost\n\n",
    "nested too deeply": b'data: {%b, "x": %b1%b}\n\n' % (_TEXT, b"[" * 100_000, b"]" * 100_000),
    "a long event that only Python reads": b'data: {%b, "x": "%b", "y": NaN}\n\n' % (_TEXT, b"a" * (1 << 20)),
    "choices that are no list": b'data: {"choices": {"0": {"delta": {"content": "lost"}}}}\n\n',
    "a choice that is no object": b'data: {"choices": ["lost"]}\n\n',
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_stream_with_an_event_that_cannot_be_read_is_an_error(name: str) -> None:
    words, end = event(chunk({"content": "Hi"})), event(chunk({}, "stop")) + DONE
    with pytest.raises(InvalidResponse):
        joined(words + UNREADABLE[name] + words + end)


@pytest.mark.parametrize(
    "block",
    [
        b": keep-alive\n\n",
        b"event: ping\n\n",
        b"data:\n\n",
        b"data:  \n\n",
        b"data: null\n\n",
        b'data: "ping"\n\n',
        b"data: []\n\n",
        b"data: {}\n\n",
        b'data: {"choices": []}\n\n',
        b'data: {"choices": null}\n\n',
    ],
)
def test_an_event_without_a_part_of_the_response_is_left_out(block: bytes) -> None:
    words, end = event(chunk({"content": "Hi"})), event(chunk({}, "stop")) + DONE
    assert joined(words + block + words + end) == joined(words + words + end)


@pytest.mark.parametrize("end", [event(chunk({}, "stop")), DONE], ids=["finish", "marker"])
def test_what_follows_the_end_of_a_stream_may_be_unreadable(end: bytes) -> None:
    words = event(chunk({"content": "Hi"}))
    for name in ("too many comments", "cut JSON", "text"):
        assert joined(words + end + UNREADABLE[name]) == joined(words + end)


def test_thinking_in_lists_and_the_answer_in_texts_are_joined() -> None:
    """Mistral's models stream so. The thinking goes where `flat_content` writes it."""
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]} for text in ("h", "m")]
    contents = ["", *([each] for each in thinking), "Hel", [{"type": "text", "text": "l"}], "o", [], None]
    stream = b"".join(event(chunk({"content": content})) for content in contents) + DONE
    message = json.loads(joined(stream))["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Hello", "reasoning_content": "hm"}
    own = {"reasoning_content": "own"}
    assert json.loads(joined(event(chunk(own)) + stream))["choices"][0]["message"] == {**message, **own}


def test_half_a_character_in_a_list_is_joined_with_its_other_half() -> None:
    contents = [[{"type": "text", "text": "a\ud83d"}], "\ude00b"]
    stream = b"".join(f"data: {json.dumps(chunk({'content': content}))}\n\n".encode() for content in contents)
    assert json.loads(joined(stream + DONE))["choices"][0]["message"]["content"] == "a😀b"


def test_content_that_is_always_a_list_stays_one() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]
    stream = b"".join(event(chunk({"content": [part]})) for part in parts) + DONE
    assert json.loads(joined(stream))["choices"][0]["message"]["content"] == parts


def test_an_image_between_texts_is_not_lost() -> None:
    image = {"type": "image_url", "image_url": {"url": "u"}}
    stream = b"".join(event(chunk({"content": content})) for content in ("a", [image], image, "b")) + DONE
    texts = [{"type": "text", "text": text} for text in "ab"]
    content = json.loads(joined(stream))["choices"][0]["message"]["content"]
    assert content == [texts[0], image, image, texts[1]]


NUMBERS = range(40)


@pytest.mark.parametrize(
    "flood",
    [
        [{"choices": [{"index": 0, f"a{number}": 1}]} for number in NUMBERS],
        [{"choices": [{"index": 0}], f"a{number}": 1} for number in NUMBERS],
        [chunk({f"a{number}": 1}) for number in NUMBERS],
        [chunk({"a": {f"a{number}": 1}}) for number in NUMBERS],
        [chunk({"a": {"b": {"c": 1}}})] * len(NUMBERS),
        [chunk({"a": [{"index": number}]}) for number in NUMBERS],
        [chunk({"a": [{"index": 1}]})] * len(NUMBERS),
        [chunk({"tool_calls": [{"index": number}]}) for number in NUMBERS],
        [chunk({"tool_calls": [{"index": 0, f"a{number}": 1}]}) for number in NUMBERS],
        [chunk({"content": ["a"]}), chunk({"content": "a"})] * len(NUMBERS),
        [chunk({"content": list(NUMBERS)}), chunk({"content": list(NUMBERS)}), chunk({"content": "a"})],
    ],
)
def test_joining_builds_a_bounded_number_of_objects(flood: list[Any]) -> None:
    """Each object takes hundreds of bytes, and JSON needs few bytes to write one."""
    stream = b"".join(map(event, flood)) + DONE

    def join(limit: int) -> bytes:
        joiner = AnswerJoiner(CHAT, limit)
        assert joiner.add(stream) is None
        return joiner.close()

    assert join(10 * len(NUMBERS))
    with pytest.raises((InvalidResponse, TooManyItems)):
        join(len(NUMBERS) // 2)


def test_joining_creates_few_choices() -> None:
    with pytest.raises(InvalidResponse):
        joined(b"".join(event({"choices": [{"index": index}]}) for index in range(2_000)) + DONE)


@pytest.mark.parametrize(
    "delta",
    [
        {"tool_calls": [{"index": 0, "a": 1, "b": 1}]},
        {"tool_calls": [{"index": 0, "a": 1, "b": 1}] * 60},
        {"reasoning_details": [{"index": 0, "a": 1}]},
        {"a": [{"index": index} for index in range(60)]},
        {"a": {"a": {"a": {"b": 1}}}},
    ],
)
def test_joining_takes_linear_time_and_memory(delta: Any) -> None:
    unit = event(chunk(delta))
    assert_bounded(joined, unit * (256 * KIB // len(unit)) + DONE, digests=500, memory=4)
