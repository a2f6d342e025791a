"""The values that a member has in the chunks of a stream are joined in their own spelling."""

import json
from typing import Any

import pytest

from proxy.wire.repairs.deltas import BUILT_MAX, ValueJoiner
from proxy.wire.repairs.shallow_json import ITEMS_MAX
from tests.linear_time import KIB, assert_linear


def join(name: str, values: list[bytes]) -> bytes:
    """Join these values of one member."""
    return bytes(ValueJoiner(BUILT_MAX).join(name, values))


def joined(name: str, *values: Any) -> Any:
    """Join the JSON of these values."""
    return json.loads(join(name, [json.dumps(value).encode() for value in values]))


@pytest.mark.parametrize(
    ("name", "values", "whole"),
    [
        ("content", ["ha", "ha"], "haha"),
        ("musing", ["a", "b", "b"], "abb"),
        ("format", ["v1", "v1", "v1"], "v1"),
        ("name", ["f", "", None], "f"),
        ("name", ["get_", "weather"], "get_weather"),
        ("role", ["assistant", "tool"], "assistant"),
        ("id", ["first", "made up"], "first"),
        ("expires_at", [1, 2], 2),
        ("done", [False, True], True),
        ("refusal", [None, None], None),
        ("refusal", [None, "no", None], "no"),
        ("content", ["", ""], ""),
        ("arguments", ["", {"a": 1}], {"a": 1}),
        ("text", [["b"], "a", 1, "a", {"c": 1}, ["d"]], "aa"),
        ("x", ["a", [1], "b", [2]], [1, 2]),
        ("x", [{"a": "1"}, ["b"], {"a": "2"}], {"a": "12"}),
        ("x", [[1], "a", 2], 2),
        ("status", ["in_progress", "in_progress", "done", ""], "done"),
        ("finish_reason", [None, "length", "stop"], "stop"),
        ("signature", ["a", "b"], "b"),
        ("format", ["v1", "v2"], "v1"),
        ("model", ["m", "m-2"], "m"),
        ("citations", [["a"], [], ["b", "c"]], ["a", "b", "c"]),
        ("annotations", [[{"url": 1}], [{"url": 2}]], [{"url": 1}, {"url": 2}]),
        ("mixed", [[{"index": 0}], ["b"]], [{"index": 0}, "b"]),
        ("audio", [{"id": "a", "data": "AAA"}, {"data": "BBB"}], {"id": "a", "data": "AAABBB"}),
        ("audio", [{"data": "QQ=="}, {"data": "QkM="}, {"data": "RA=="}], {"data": "QUJDRA=="}),
        ("audio", [{"data": "a!="}, {"data": "b"}], {"data": "a!=b"}),
    ],
)
def test_values_are_joined_by_their_kind(name: str, values: list[Any], whole: Any) -> None:
    assert joined(name, *values) == whole


def test_items_of_the_same_index_are_joined() -> None:
    """OpenRouter writes `reasoning_details` so, and gives an encrypted item the index of its summary."""
    kind = {"type": "reasoning.text", "format": "v1"}
    assert joined(
        "reasoning_details",
        [{"index": 0, **kind, "text": "a"}],
        [{"index": 1, **kind, "text": "c"}, {"index": 0, **kind, "text": "b"}],
        [{"index": 0, "type": "reasoning.encrypted", "data": "x"}],
        [{"index": 0, "signature": "s"}],
    ) == [
        {"index": 0, **kind, "text": "ab"},
        {"index": 0, "type": "reasoning.encrypted", "data": "x", "signature": "s"},
        {"index": 1, **kind, "text": "c"},
    ]


def test_a_value_without_another_keeps_its_bytes() -> None:
    assert join("x", [b'{ "a": 1.10 }', b"null"]) == b'{ "a": 1.10 }'
    assert join("x", [rb'"\u00e9"', rb'"\/"']) == rb'"\u00e9\/"'
    assert join("x", [b"[1.10, 2]", b"[ ]", b"[1e400]"]) == b"[1.10, 2,1e400]"


def test_long_lists_are_joined_as_they_are() -> None:
    items = [{"index": 0}] * (ITEMS_MAX + 1)
    assert joined("x", items, items) == items * 2


@pytest.mark.parametrize("before", [b"", b'{"a":' * 400, b"[" * 400, b'[{"index":0,"a":' * 200])
def test_nested_values_take_linear_time(before: bytes) -> None:
    closing = {b"{"[0]: b"}", b"["[0]: b"]"}
    after = b"".join(closing[byte] for byte in reversed(before) if byte in closing)

    def run(text: bytes) -> None:
        value = before + b'"' + text.replace(b'"', b"") + b'"' + after
        join("x", [value, value])

    assert_linear(run, [b"a", b"[]", b"{}"], limit=64 * KIB, memory=64)
