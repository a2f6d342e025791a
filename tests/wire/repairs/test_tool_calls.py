"""Tool calls in streams: each gets an id, a type, an index and arguments, and its parts stay together."""

import json
import tracemalloc
from typing import Any

import pytest

from proxy.wire.endpoints import Shape
from proxy.wire.repairs import Call, StreamRepairer, repair_response, resolve
from proxy.wire.repairs.tool_calls import CALLS_MAX, KEPT_BYTES_MAX, ToolCalls
from tests.wire.repairs.streams import chunk, event, payloads, repair

Json = dict[str, Any]


def part(arguments: object = None, name: object = None, **members: Any) -> bytes:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return event(chunk({"tool_calls": [{**members, "function": function}]}))


def parts(stream: bytes) -> list[Json]:
    choices = [choice for each in payloads(stream) for choice in each["choices"]]
    return [call for choice in choices for call in choice["delta"].get("tool_calls", ())]


def arguments(stream: bytes) -> dict[int, str]:
    joined: dict[int, str] = {}
    for call in parts(stream):
        joined[call["index"]] = joined.get(call["index"], "") + (call["function"].get("arguments") or "")
    return joined


def test_a_call_is_not_given_the_index_of_one_that_had_none() -> None:
    stream = part("{}", "f") + part("{", "g", index=0, id="b") + part("}", index=0)
    assert arguments(repair(["index_tool_calls"], stream)) == {0: "{}", 1: "{}"}


def test_an_index_that_is_written_as_a_fraction_is_a_whole_number() -> None:
    stream = part("{", "f", index=0.0, id="a") + part("{", "f", index=1.0, id="b")
    stream += part("}", index=0.0) + part("}", index=1.0)
    out = repair(["index_tool_calls"], stream)
    assert arguments(out) == {0: "{}", 1: "{}"}
    assert b".0" not in out
    whole = json.dumps({"choices": [{"message": {"tool_calls": [{"index": 1.0}, {"index": 0.0}]}}]}).encode()
    repaired = repair_response(resolve(["index_tool_calls"]), Call(Shape.CHAT), whole)
    assert repaired == whole.replace(b".0", b"").replace(b" ", b"")


def test_calls_with_the_same_index_are_distinguished_by_id_and_name() -> None:
    stream = part("{}", "f", index=0, id="a") + part("{", "g", index=0, id="b") + part("}", index=0)
    assert arguments(repair(["index_tool_calls"], stream)) == {0: "{}", 1: "{}"}


def test_whole_calls_with_the_same_index_and_no_id_are_distinguished_by_name() -> None:
    stream = part('{"x":1}', "a", index=0) + part('{"y":2}', "b", index=0) + part("", index=0)
    out = repair(["index_tool_calls"], stream)
    assert arguments(out) == {0: '{"x":1}', 1: '{"y":2}'}
    both = event(chunk({"tool_calls": [call for each in (stream,) for call in parts(each)]}))
    assert arguments(repair(["index_tool_calls"], both)) == {0: '{"x":1}', 1: '{"y":2}'}


def test_a_name_that_is_repeated_or_precedes_the_arguments_continues_the_call() -> None:
    repeated = part("{", "a", index=0) + part("}", "a", index=0)
    assert arguments(repair(["index_tool_calls"], repeated)) == {0: "{}"}
    in_pieces = part("", "get_", index=0) + part("", "time", index=0) + part("{}", index=0)
    assert arguments(repair(["index_tool_calls"], in_pieces)) == {0: "{}"}


def test_another_id_without_a_name_continues_the_call() -> None:
    stream = part("{", "f", index=0, id="a") + part("}", index=0, id="made-up-for-this-part")
    assert arguments(repair(["index_tool_calls"], stream)) == {0: "{}"}


def test_a_call_gets_an_id_and_a_type_and_its_later_parts_lose_nulls() -> None:
    stream = part("", "f", index=0) + part("{}", index=0, id=None, type=None)
    first, second = parts(repair(["fill_tool_calls"], stream))
    assert (first["id"], first["type"]) == ("call_c_0", "function")
    assert second == {"index": 0, "function": {"arguments": "{}"}}


def test_valid_parts_stay_byte_for_byte() -> None:
    stream = part("", "f", index=0, id="a", type="function") + part("{}", index=0)
    assert repair(["fill_tool_calls", "index_tool_calls", "text_arguments"], stream) == stream


LONG = "x" * (KEPT_BYTES_MAX + 1)


def test_calls_with_long_ids_and_names_are_distinguished() -> None:
    stream = part("{", LONG, index=0, id=LONG + "a") + part("", "g", index=0, id=LONG + "b")
    stream += part("}", index=0, id=LONG + "a")
    assert arguments(repair(["index_tool_calls"], stream)) == {0: "{}", 1: ""}


def test_a_long_name_is_dropped_where_it_is_repeated() -> None:
    stream = part("{", LONG, index=0, id="a", type="function") + part("}", LONG, index=0)
    first, second = parts(repair(["fill_tool_calls"], stream))
    assert first["function"] == {"name": LONG, "arguments": "{"}
    assert second["function"] == {"arguments": "}"}


def test_a_call_with_a_long_id_gets_its_arguments_by_its_index() -> None:
    stream = part(None, "f", index=0, id=LONG) + event(chunk({}, finish_reason="tool_calls"))
    assert parts(repair(["text_arguments"], stream))[-1] == {"index": 0, "function": {"arguments": "{}"}}


def long_part(number: int, place: str) -> bytes:
    """Return a part of a call with one long value."""
    digits = f"{number}".ljust(4_000, "7")
    values = {"id": '"a"', "name": '"f"', "index": f"{number}", "choice": "0"}
    values[place] = digits if place == "index" else f'"{digits * 25}"'
    members = f'"id": {values["id"]}, "index": {values["index"]}, "function": {{"name": {values["name"]}}}'
    delta = f'{{"tool_calls": [{{{members}}}]}}'
    return f'data: {{"choices": [{{"index": {values["choice"]}, "delta": {delta}}}]}}\n\n'.encode()


@pytest.mark.parametrize("place", ["id", "name", "index", "choice"])
def test_what_a_stream_holds_does_not_grow_with_the_values_of_its_calls(place: str) -> None:
    repairer = StreamRepairer(resolve(["ragflow"]), Call(Shape.CHAT, streams=True, tools=True))
    tracemalloc.start()
    try:
        for number in range(50):
            repairer.feed(long_part(number, place))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 4 * len(long_part(0, place)) + 100_000


@pytest.mark.parametrize("written", [None, {}, ""])
def test_a_call_that_ends_without_arguments_gets_an_object(written: object) -> None:
    stream = part(written, "f", index=0, id="a") + event(chunk({}, "tool_calls"))
    out = repair(["text_arguments"], stream)
    assert arguments(out) == {0: "{}"}
    assert payloads(out)[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_arguments_that_are_an_object_become_a_text() -> None:
    stream = part({"a": [1.50, None]}, "f", index=0, id="a") + event(chunk({}, "tool_calls"))
    assert json.loads(arguments(repair(["text_arguments"], stream))[0]) == {"a": [1.5, None]}


@pytest.mark.parametrize("tools", [True, False])
def test_a_function_call_becomes_a_tool_call_where_tools_were_sent(tools: bool) -> None:  # noqa: FBT001
    stream = event(chunk({"function_call": {"name": "f", "arguments": "{}"}})) + event(
        chunk({}, "function_call")
    )
    call = Call(Shape.CHAT, streams=True, tools=tools)
    out = StreamRepairer(resolve(["function_call_as_tool_call"]), call).feed(stream)
    assert (arguments(out) == {0: "{}"}) is tools
    assert (out == stream) is not tools
    assert (payloads(out)[-1]["choices"][0]["finish_reason"] == "tool_calls") is tools


def test_the_number_of_tracked_calls_is_bounded() -> None:
    calls = ToolCalls()
    for number in range(3 * CALLS_MAX):
        calls.find({"id": json.dumps(str(number)).encode()})  # type: ignore[dict-item]
    assert len(calls.calls) <= CALLS_MAX


# --- tools that are not functions


@pytest.mark.parametrize("kind", [{}, {"type": None}, {"type": "custom"}])
def test_a_custom_tool_call_gets_an_id_and_a_type_but_no_function(kind: Json) -> None:
    names = ["fill_tool_calls", "index_tool_calls", "text_arguments"]
    calls = [{**kind, "custom": {"name": "g", "input": ""}}, {"custom": {"input": "x"}}]
    stream = b"".join(event(chunk({"tool_calls": [call]})) for call in calls)
    ended = repair(names, stream, event(chunk({}, "tool_calls")))
    assert parts(ended) == [
        {"index": 0, "id": "call_c_0", "type": "custom", "custom": {"name": "g", "input": ""}},
        {"index": 0, "custom": {"input": "x"}},
    ]
    body = json.dumps({"id": "c", "choices": [{"message": {"tool_calls": calls[:1]}}]}).encode()
    whole = repair_response(resolve(names), Call(Shape.CHAT), body)
    assert isinstance(whole, bytes)
    assert json.loads(whole)["choices"][0]["message"]["tool_calls"] == parts(ended)[:1]


def test_custom_tool_calls_with_the_same_index_are_distinguished_by_id_and_name() -> None:
    calls = [{"index": 0, "id": each, "type": "custom", "custom": {"name": "g"}} for each in "ab"]
    stream = b"".join(event(chunk({"tool_calls": [call]})) for call in calls)
    assert [call["index"] for call in parts(repair(["index_tool_calls"], stream))] == [0, 1]


def test_a_function_of_another_type_is_repaired_like_any_other() -> None:
    stream = part({"a": 1}, "f", index=0, id="a", type="tool_use")
    (call,) = parts(repair(["text_arguments"], stream))
    assert call["function"]["arguments"] == '{"a": 1}'
