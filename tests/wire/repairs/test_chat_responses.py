"""Whole chat responses: members that clients read without a check exist."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.repairs import Call, repair_response, resolve

CHAT = Shape.CHAT


def repaired(name: str, answer: object, shape: Shape = CHAT) -> Any:
    once = repair_response(resolve([name]), Call(shape), json.dumps(answer).encode())
    assert isinstance(once, bytes)
    assert repair_response(resolve([name]), Call(shape), once) is once
    return json.loads(once)


def untouched(name: str, answer: object, shape: Shape = CHAT) -> bool:
    body = json.dumps(answer).encode()
    return repair_response(resolve([name]), Call(shape), body) is body


def answer(message: object, **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **more}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None},
        {"role": "assistant"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant", "content": None, "tool_calls": None, "reasoning_content": "hm"},
    ],
)
def test_null_content_becomes_an_empty_text(message: dict[str, object]) -> None:
    assert repaired("fill_content", answer(message)) == answer({**message, "content": ""})


@pytest.mark.parametrize(
    "message",
    [
        {"content": "x"},
        {"content": ""},
        {"content": [{"type": "text", "text": "x"}]},
        {"content": None, "tool_calls": [{"id": "a"}]},
        {"content": None, "function_call": {"name": "f"}},
        None,
    ],
)
def test_content_and_null_next_to_a_tool_call_stay(message: object) -> None:
    assert untouched("fill_content", answer(message))


def test_tool_calls_get_their_position_as_index() -> None:
    calls = [
        {"id": "a", "function": {"arguments": "{}"}},
        {"id": "b", "index": None},
        {"id": "c", "index": 7},
    ]
    message = repaired("index_tool_calls", answer({"tool_calls": calls}))["choices"][0]["message"]
    assert message["tool_calls"] == [
        {"id": "a", "function": {"arguments": "{}"}, "index": 0},
        {"id": "b", "index": 1},
        {"id": "c", "index": 7},
    ]


def test_a_lone_tool_call_becomes_a_list() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = repaired("index_tool_calls", answer({"content": "", "tool_calls": call}))["choices"][0][
        "message"
    ]
    assert message["tool_calls"] == [{**call, "index": 0}]


def test_indexed_tool_calls_stay() -> None:
    assert untouched("index_tool_calls", answer({"tool_calls": [{"index": 0}]}))
    assert untouched("index_tool_calls", answer({"tool_calls": None}))


@pytest.mark.parametrize("absent", [{}, {"usage": None}])
def test_absent_usage_becomes_zeros(absent: dict[str, object]) -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert repaired("fill_usage", answer({}, **absent))["usage"] == zeros
    del zeros["completion_tokens"]
    assert repaired("fill_usage", {"data": [{}], **absent}, Shape.EMBEDDINGS)["usage"] == zeros


@pytest.mark.parametrize(
    ("usage", "filled"),
    [
        ({"total_tokens": None}, {"total_tokens": 0, "prompt_tokens": 0}),
        ({"prompt_tokens": 4, "total_tokens": None}, {"prompt_tokens": 4, "total_tokens": 4}),
        ({"prompt_tokens": 4, "x": None}, {"prompt_tokens": 4, "x": None, "total_tokens": 4}),
        ({"total_tokens": 5}, {"total_tokens": 5, "prompt_tokens": 0}),
    ],
)
def test_null_counts_of_embeddings_become_numbers(usage: object, filled: object) -> None:
    assert repaired("fill_usage", {"data": [{}], "usage": usage}, Shape.EMBEDDINGS)["usage"] == filled


def test_the_total_is_the_sum_of_its_parts() -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": None}
    assert repaired("fill_usage", answer({}, usage=usage))["usage"]["total_tokens"] == 7


def test_complete_usage_and_responses_without_choices_do_not_change() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "details": None}
    assert untouched("fill_usage", answer({}, usage=usage))
    assert untouched("fill_usage", {"error": {"message": "no"}})


def test_usage_that_is_not_an_object_becomes_one() -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    odd: tuple[object, ...] = ("many", [], 12)
    for written in odd:
        assert repaired("fill_usage", answer({}, usage=written))["usage"] == usage


PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
    {"type": "text", "text": "Hel"},
    "lo",
]


def test_content_in_parts_becomes_a_text() -> None:
    message = repaired("flat_content", answer({"content": PARTS}))["choices"][0]["message"]
    assert message == {"content": "Hello", "reasoning_content": "hm"}
    assert repaired("flat_content", answer({"content": PARTS[1]})) == answer({"content": "Hel"})
    assert untouched("flat_content", answer({"content": "Hello"}))
    assert untouched("flat_content", answer({"content": None}))
    table = "a,b,c\n" * 30_000
    parts = [{"type": "text", "text": table}]
    assert repaired("flat_content", answer({"content": parts})) == answer({"content": table})


IMAGE = {"type": "image_url", "image_url": {"url": "https://img.example/a.png"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"type": "refusal", "refusal": "no"}], {"content": "", "refusal": "no"}),
        (
            [{"type": "text", "text": "a", "image_url": None}, {"type": "text", "text": None}],
            {"content": "a"},
        ),
        ([{"type": "text", "text": None, "content": "a"}, {"index": 0, "text": ""}], {"content": "a"}),
        ([{"type": "thinking", "thinking": "hm"}, 7], {"content": "7", "reasoning_content": "hm"}),
        ([{"type": "text", "text": "a"}, {"type": "reference", "reference_ids": [1, 2]}], {"content": "a"}),
        ([], {"content": ""}),
        ({}, {"content": ""}),
    ],
)
def test_each_part_of_content_goes_where_clients_look_for_it(content: object, message: object) -> None:
    assert repaired("flat_content", answer({"content": content}))["choices"][0]["message"] == message


@pytest.mark.parametrize(
    "other",
    [
        IMAGE,
        {"type": "image_url", "text": None, "image_url": {"url": "u"}},
        {"image": "https://img.example/a.png"},
        {"type": "output_audio", "data": "AA=="},
        {"type": "thinking", "thinking": [IMAGE]},
        {"a": 1},
        True,
    ],
    ids=json.dumps,
)
def test_content_that_is_more_than_texts_is_not_lost(other: object) -> None:
    text = {"type": "text", "text": "a"}
    assert untouched("flat_content", answer({"content": [text, other]}))
    assert untouched("flat_content", answer({"content": [other]}))
    assert untouched("flat_content", answer({"content": other}))


_PARTS = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from("abc"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "content", "thinking", "refusal", "image"]), inner, max_size=1
        )
    ),
    max_leaves=6,
)


def values(content: Any) -> list[str]:
    """Return the characters of all texts, all numbers and all booleans, in order."""
    if isinstance(content, dict | list):
        inner = content.values() if isinstance(content, dict) else content
        return sorted(value for each in inner for value in values(each))
    return [] if content is None else sorted(str(content)) if isinstance(content, str) else [str(content)]


@given(st.lists(_PARTS, max_size=3))
def test_flattening_loses_nothing_of_any_content(content: Any) -> None:
    message = repaired("flat_content", answer({"content": content}))["choices"][0]["message"]
    assert values(message) == values(content)


def test_a_message_under_another_name_is_moved_but_never_invented() -> None:
    choice = {"index": 0, "finish_reason": "stop"}
    expected = {"choices": [{**choice, "message": {"content": "Hi"}}]}
    for elsewhere in ({"delta": {"content": "Hi"}}, {"text": "Hi"}, {"message": None, "text": "Hi"}):
        assert repaired("fill_message", {"choices": [{**choice, **elsewhere}]}) == expected
    assert untouched("fill_message", {"choices": [{**choice, "message": None}]})
    with pytest.raises(InvalidResponse):
        repaired("true_errors", {"choices": [{**choice, "message": None}]})


def test_a_missing_finish_reason_is_added() -> None:
    for message, reason in (({"content": "x"}, "stop"), ({"tool_calls": [{"id": "a"}]}, "tool_calls")):
        found = repaired("fill_finish", {"choices": [{"message": message}]})
        assert found["choices"][0]["finish_reason"] == reason
    assert untouched("fill_finish", answer({"content": "x"}))


def test_tool_calls_get_ids_types_and_arguments() -> None:
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}, {"id": None, "function": {"name": "g"}}]
    both = repaired("fill_tool_calls", answer({"tool_calls": calls}, id="c"))
    found = both["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["type"]) for call in found] == [
        ("call_c_0", "function"),
        ("call_c_1", "function"),
    ]
    written = repaired("text_arguments", answer({"tool_calls": calls}))["choices"][0]["message"]["tool_calls"]
    assert [json.loads(call["function"]["arguments"]) for call in written] == [{"a": 1}, {}]


@pytest.mark.parametrize("envelope", ["data", "result", "output", "response"])
def test_a_response_is_taken_out_of_its_envelope(envelope: str) -> None:
    assert repaired("unwrap_answer", {"code": 0, "id": "r", envelope: answer({"content": "x"})}) == {
        "id": "r",
        **answer({"content": "x"}),
    }
    assert untouched("unwrap_answer", {envelope: {"text": "x"}})
