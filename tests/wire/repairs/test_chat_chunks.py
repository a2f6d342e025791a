"""Chunks: faults that break clients are repaired, and no text is lost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.repairs.streams import DONE, EVENTS, chunk, cut, event, payloads, repair

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
Json = dict[str, Any]
CHUNK_REPAIRS = ["fill_delta", "index_tool_calls", "split_finish", "usage_once", "drop_unasked_chunks"]


def test_a_null_delta_becomes_an_empty_one() -> None:
    assert payloads(repair(["fill_delta"], event(chunk(None)))) == [chunk({})]


def test_a_chunk_with_content_and_finish_is_split_and_the_second_has_the_usage() -> None:
    whole = event(chunk({"role": "assistant", "content": "Hi"}, "stop", usage=USAGE))
    assert payloads(repair(["split_finish"], whole)) == [
        chunk({"role": "assistant", "content": "Hi"}, usage=None),
        chunk({}, "stop", usage=USAGE),
    ]


def test_only_the_choices_that_end_are_in_both_chunks() -> None:
    going = {"index": 0, "delta": {"content": "a"}, "finish_reason": None}
    ending = {"index": 1, "delta": {"content": "b"}, "finish_reason": "stop", "logprobs": {"content": []}}
    assert payloads(repair(["split_finish"], event({"choices": [going, ending]}))) == [
        {"choices": [going, {**ending, "finish_reason": None}]},
        {"choices": [{**ending, "delta": {}, "logprobs": None}]},
    ]


@pytest.mark.parametrize("delta", [{}, {"content": ""}, {"content": None}, {"tool_calls": [{"index": 0}]}])
def test_an_end_without_content_stays_whole(delta: object) -> None:
    end = event(chunk(delta, "stop"))
    assert repair(["split_finish"], end) == end


@pytest.mark.parametrize(
    "empty",
    [
        {"choices": [], "usage": USAGE},
        {"choices": [], "prompt_filter_results": [{}], "id": "", "model": ""},
    ],
)
def test_chunks_with_empty_choices_are_dropped_unless_usage_was_asked(empty: object) -> None:
    stream = event(chunk({"content": "x"})) + event(empty) + DONE
    names = ["drop_unasked_chunks"]
    assert repair(names, stream) == event(chunk({"content": "x"})) + DONE
    assert repair(names, stream, usage_requested=True) == stream


@pytest.mark.parametrize("usage", [USAGE, None])
@pytest.mark.parametrize("choices", [{"choices": None}, {}])
def test_chunks_without_choices_are_dropped_and_requested_usage_gets_choices(
    choices: Json, usage: Json | None
) -> None:
    stream = event(chunk({"content": "x"})) + event({**choices, "usage": usage}) + DONE
    names = ["drop_unasked_chunks"]
    assert repair(names, stream) == event(chunk({"content": "x"})) + DONE
    left = payloads(repair(names, stream, usage_requested=True))[1:]
    assert left == ([{"choices": [], "usage": usage}] if usage else [])


@pytest.mark.parametrize(
    "kept",
    [
        {"error": {"message": "boom"}},
        {"choices": [], "error": {"message": "boom"}},
        {"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
        chunk({"content": "x"}, usage=USAGE),
    ],
)
def test_errors_and_content_are_never_dropped(kept: object) -> None:
    assert repair(["drop_unasked_chunks"], event(kept)) == event(kept)


def test_usage_on_every_chunk_is_kept_only_on_the_last() -> None:
    stream = b"".join(event(chunk({"content": str(n)}, usage=USAGE)) for n in range(4))
    stream += event(chunk({}, "stop", usage=USAGE)) + DONE
    told = payloads(repair(["usage_once"], stream))
    assert [each["usage"] for each in told] == [None, None, None, None, USAGE]
    assert [each["choices"][0]["delta"] for each in told] == [*({"content": str(n)} for n in range(4)), {}]


def test_an_empty_finish_reason_does_not_end_a_choice() -> None:
    stream = b"".join(event(chunk({"content": str(n)}, "", usage=USAGE)) for n in range(3))
    assert repair(["split_finish"], stream) == stream
    told = payloads(repair(["usage_once"], stream + event(chunk({}, "stop", usage=USAGE))))
    assert [each["usage"] for each in told] == [None, None, None, USAGE]


def test_requested_usage_on_content_chunks_is_sent_before_the_end_marker() -> None:
    stream = [event(chunk({"content": "a"}, usage=USAGE)), event(chunk({}, "stop")), DONE]
    out = repair(["usage_once"], *stream, usage_requested=True)
    owed = {**chunk({}), "choices": [], "usage": USAGE}
    assert payloads(out) == [chunk({"content": "a"}, usage=None), chunk({}, "stop"), owed]
    assert out.endswith(DONE)
    assert payloads(repair(["usage_once"], *stream[:2], usage_requested=True))[-1] == owed
    assert payloads(repair(["usage_once"], *stream[:2]))[-1] == chunk({}, "stop")


def test_usage_in_a_separate_chunk_is_not_sent_twice() -> None:
    own = event({"choices": [], "usage": USAGE})
    stream = event(chunk({"content": "a"}, usage=USAGE)) + own + DONE
    assert repair(["usage_once"], stream, usage_requested=True).count(b'"total_tokens": 12') == 1


def numbered(number: int) -> dict[str, int]:
    """A usage that grows from chunk to chunk."""
    return {"prompt_tokens": 3, "completion_tokens": number, "total_tokens": 3 + number}


EMPTY: dict[str, Any] = {**chunk({}), "choices": []}


@given(
    counted=st.sets(st.integers(0, 6)),
    choices=st.integers(1, 3),
    has_extra=st.booleans(),
    is_marked=st.booleans(),
    asked=st.booleans(),
)
def test_a_stream_has_its_usage_once_wherever_the_upstream_writes_it(
    counted: set[int], choices: int, *, has_extra: bool, is_marked: bool, asked: bool
) -> None:
    """Some write it on every chunk, others with each finish_reason, and most on a chunk without choices."""
    texts = [chunk({"content": "a"}), chunk({"content": "b"})]
    ends = [*(chunk({}, "stop") for _ in range(choices)), *([EMPTY] if has_extra else [])]
    parts = [*texts, *ends]
    sent = [{**part, "usage": numbered(n)} if n in counted else part for n, part in enumerate(parts)]
    stream = b"".join(map(event, sent)) + (DONE if is_marked else b"")

    told = payloads(repair(["usage_once"], stream, usage_requested=asked))
    reported = [n for n in range(len(parts)) if n in counted]
    expected = reported[-1:] if asked else [n for n in reported if n >= len(texts)][:1]
    holders = [each for each in told if each.get("usage") is not None]
    assert [each["usage"] for each in holders] == [*map(numbered, expected)]
    assert not asked or not any(each["choices"] for each in holders)
    assert [each["choices"] for each in told if each["choices"]] == [
        part["choices"] for part in parts if part["choices"]
    ]


def calls(*given: dict[str, Any]) -> bytes:
    return event(chunk({"tool_calls": [*given]}))


def indexes(stream: bytes) -> list[list[int]]:
    return [
        [call["index"] for call in each["choices"][0]["delta"]["tool_calls"]] for each in payloads(stream)
    ]


def named(name: str, **more: object) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": ""}, **more}


def more(text: str, **more: object) -> dict[str, Any]:
    return {"function": {"arguments": text}, **more}


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        # Ids only at the beginning of calls.
        (
            [
                calls(named("f", id="a")),
                calls(more("{")),
                calls(more("}")),
                calls(named("g", id="b")),
                calls(more("{}")),
            ],
            [[0], [0], [0], [1], [1]],
        ),
        # The id on every chunk, calls interleaved.
        (
            [
                calls(named("f", id="a"), named("g", id="b")),
                calls(more("{", id="b")),
                calls(more("{", id="a")),
            ],
            [[0, 1], [1], [0]],
        ),
        # Whole calls without ids.
        ([calls(named("f")), calls(named("g"))], [[0], [1]]),
        # Null and empty ids.
        ([calls(named("f", id="a", index=None)), calls(more("{}", id="", index=None))], [[0], [0]]),
        # An index only at the beginning.
        (
            [calls(named("f", id="a", index=3)), calls(more("{}", id="a")), calls(named("g", id="b"))],
            [[3], [3], [4]],
        ),
        # Indexes out of order: the next call gets a new one.
        (
            [
                calls(named("f", id="a", index=3)),
                calls(named("g", id="b", index=1)),
                calls(named("h", id="c")),
            ],
            [[3], [1], [4]],
        ),
        # A continuation before any beginning.
        ([calls(more("{}"))], [[0]]),
    ],
)
def test_tool_calls_are_joined_by_their_new_index(stream: list[bytes], expected: list[list[int]]) -> None:
    assert indexes(repair(["index_tool_calls"], *stream)) == expected


def test_tool_calls_are_counted_per_choice() -> None:
    both = {"choices": [{"index": n, "delta": {"tool_calls": [named("f", id="a")]}} for n in (0, 1)]}
    told = payloads(repair(["index_tool_calls"], event(both)))[0]["choices"]
    assert [choice["delta"]["tool_calls"][0]["index"] for choice in told] == [0, 0]


def test_a_lone_tool_call_becomes_a_list() -> None:
    told = payloads(repair(["index_tool_calls"], event(chunk({"tool_calls": named("f", id="a")}))))
    assert told == [chunk({"tool_calls": [named("f", id="a", index=0)]})]


def test_indexed_tool_calls_stay() -> None:
    stream = calls(named("f", id="a", index=0)) + calls(more("{}", index=0))
    assert repair(["index_tool_calls"], stream) == stream


def said(stream: bytes) -> dict[tuple[int, str], str]:
    """Return the text by choice and kind, and the arguments of each call in order."""
    told: dict[tuple[int, str], str] = {}
    for each in payloads(stream):
        for choice in each.get("choices") or ():
            delta = choice.get("delta") or {}
            parts = {kind: delta.get(kind) or "" for kind in ("content", "reasoning_content")}
            parts["calls"] = "".join(
                json.dumps([call.get("id"), call["function"]]) for call in delta.get("tool_calls") or ()
            )
            parts["finish_reason"] = choice.get("finish_reason") or ""
            for kind, text in parts.items():
                told[choice["index"], kind] = told.get((choice["index"], kind), "") + text
    return told


@given(EVENTS, st.lists(st.integers(0, 20), max_size=4), st.booleans())
def test_no_text_is_lost_by_repairs(events: list[bytes], at: list[int], usage_requested: bool) -> None:  # noqa: FBT001
    stream = b"".join(events)
    out = repair(CHUNK_REPAIRS, *cut(events, at), usage_requested=usage_requested)
    assert said(out) == said(stream)
    assert out.count(DONE) == 1


@given(EVENTS, st.booleans())
def test_requested_usage_is_sent_at_the_end(events: list[bytes], usage_requested: bool) -> None:  # noqa: FBT001
    told = payloads(repair(CHUNK_REPAIRS, *events, usage_requested=usage_requested))
    if usage_requested and any(each.get("usage") for each in payloads(b"".join(events))):
        assert any(each.get("usage") for each in told)
    for each in told:
        ends = [choice.get("finish_reason") for choice in each.get("choices") or ()]
        assert not each.get("usage") or not ends or any(ends)
