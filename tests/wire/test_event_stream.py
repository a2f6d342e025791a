"""The framer: it returns only whole events, and does not change the bytes."""

import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import Aborted
from proxy.wire.error_envelope import error_event
from proxy.wire.event_stream import LARGE_PIECE_BYTES, EventFramer, begins_like_events

CAP = 1 << 20
LINE_ENDS = [b"\n", b"\r\n", b"\r"]


def frame(chunks: list[bytes], cap: int = CAP) -> tuple[list[bytes], EventFramer]:
    framer = EventFramer(cap)
    return [framer.feed(chunk) for chunk in chunks], framer


def reference_ends(stream: bytes) -> set[int]:
    """Return the offsets at which an event can end, found line by line."""
    ends, position, line_start = set(), 0, 0
    while position < len(stream):
        if stream[position] in b"\r\n":
            empty = position == line_start
            position += 2 if stream[position : position + 2] == b"\r\n" else 1
            line_start = position
            if empty:
                ends.add(position)
        else:
            position += 1
    return ends


def cuts(stream: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(place % (len(stream) + 1) for place in at)})
    return [stream[a:b] for a, b in itertools.pairwise(places)]


STREAMS = st.lists(
    st.sampled_from(
        [b"data: {}", b"data:x", b": ping", b"event: error", b"", b"", b"\xe4\xbd\xa0", b"id: 1"]
    ).flatmap(lambda line: st.sampled_from(LINE_ENDS).map(lambda end: line + end))
    | st.binary(max_size=6),
    max_size=30,
).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 400), max_size=12))
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [9, 10, 11])
@example(b"data: a\r\rdata: b\r\r", [8])
@example(b"data: a\n\r\ndata: b\r\n\n", [8, 9])
def test_joined_output_is_the_input_whatever_the_cuts(stream: bytes, at: list[int]) -> None:
    out, framer = frame(cuts(stream, at))
    assert b"".join(out) + framer.flush() == stream


@given(STREAMS, st.lists(st.integers(0, 400), max_size=12))
def test_output_always_stops_at_an_event_end(stream: bytes, at: list[int]) -> None:
    ends, given_so_far = reference_ends(stream) | {0}, 0
    out, _ = frame(cuts(stream, at))
    for piece in out:
        given_so_far += len(piece)
        # A CR ends a line. A LF after it belongs to the same line end, even if it is in the next chunk.
        assert given_so_far in ends or (
            stream[given_so_far - 1 :][:2] == b"\r\n" and given_so_far + 1 in ends
        )


@given(STREAMS)
def test_whole_events_are_not_delayed(stream: bytes) -> None:
    out, _ = frame([stream])
    left = len(b"".join(out))
    # An extra line end may be held until the next chunk, but a whole event may not.
    assert not any(stream[left:end].strip(b"\r\n") for end in reference_ends(stream) if end > left)


def test_events_received_together_are_returned_together() -> None:
    out, framer = frame([b"data: 1\n\ndata: 2\n\ndata: 3", b"\n\n"])
    assert out == [b"data: 1\n\ndata: 2\n\n", b"data: 3\n\n"]
    assert framer.events == 3


def test_the_unfinished_tail_is_kept_until_the_end() -> None:
    out, framer = frame([b"data: 1\n\ndata: [DO", b"NE]"])
    assert out == [b"data: 1\n\n", b""]
    assert framer.flush() == b"data: [DONE]"
    assert framer.finished


@pytest.mark.parametrize(
    "ending",
    [
        b"data: [DONE]\n\n",
        b"data:[DONE]\n\n",
        b"data:  [DONE] \n\n",
        b"data: x\n\ndata: [DONE]\r\n\r\n",
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"finish_reason" : "length"}]}\n\n',
    ],
)
def test_a_stream_with_an_end_marker_is_finished(ending: bytes) -> None:
    _, framer = frame([b"data: {}\n\n", ending])
    assert framer.finished


@pytest.mark.parametrize(
    "ending",
    [
        b"",
        b": [DONE]\n\n",
        b'data: {"choices":[{"delta":{"content":"data: [DONE]"},"finish_reason":null}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\"finish_reason\\":\\"x\\""},"finish_reason":null}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":""}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a"},"finish_reason" : "" }]}\n\n',
    ],
)
def test_a_stream_that_only_talks_about_the_end_is_not_finished(ending: bytes) -> None:
    _, framer = frame([b"data: {}\n\n", ending])
    framer.flush()
    assert not framer.finished


@pytest.mark.parametrize("comment", [b": wait\n\n", b":\r\n\r\n", b": a\n: b\n\n"])
@pytest.mark.parametrize(
    "end",
    [b'data: {"choices": [{"finish_reason": "stop"}]}\n\n', b"data: [DONE]\n\n"],
    ids=["finish", "marker"],
)
def test_comments_do_not_hide_the_end_of_a_stream(end: bytes, comment: bytes) -> None:
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 1}}\n\n'
    _, framer = frame([b"data: 1\n\n", usage, end, *[comment] * 100])
    assert (framer.finished, framer.marked) == (True, b"DONE" in end)
    assert usage in framer.recent
    assert framer.events == 103


def test_one_finished_choice_does_not_make_a_cut_stream_of_others_whole() -> None:
    finish = b'data: {"choices": [{"index": 0, "finish_reason": "stop"}]}\n\n'
    other = b'data: {"choices": [{"index": 1, "delta": {"content": "a"}, "finish_reason": null}]}\n\n'
    _, framer = frame([finish, *[b": wait\n\n" + other] * 100])
    assert not framer.finished


def test_an_event_over_the_limit_is_detected_and_the_ones_before_it_are_returned() -> None:
    framer = EventFramer(16)
    assert framer.feed(b"data: 1\n\ndata: 23456789") == b"data: 1\n\n"
    assert not framer.too_large
    assert framer.feed(b"0123456789") == b""
    assert framer.too_large


def test_of_several_large_events_only_the_last_is_kept() -> None:
    framer = EventFramer(1 << 24)
    large = b"data: " + b"x" * LARGE_PIECE_BYTES + b"\n\n"
    for event in (b'data: {"finish_reason": "stop"}\n\n', large, large, large, b"data: 1\n\n"):
        assert framer.feed(event) == event
    assert framer.recent == b'data: {"finish_reason": "stop"}\n\n' + large + b"data: 1\n\n"
    assert framer.finished
    assert not framer.marked
    framer.feed(b"data: [DONE]\n\n")
    assert framer.marked


def test_one_byte_at_a_time_takes_linear_time() -> None:
    framer = EventFramer(1 << 22)
    for _ in range(200_000):  # Quadratic time would copy 20 GB.
        framer.feed(b"x")
    assert framer.feed(b"\n\n") == b"x" * 200_000 + b"\n\n"


@pytest.mark.parametrize("named", [True, False])
def test_error_event_holds_the_envelope(named: bool) -> None:  # noqa: FBT001
    event = error_event(Aborted().envelope(), named=named)
    head, data, rest = event.partition(b"data: ")
    assert head == (b"event: error\n" if named else b"")
    assert json.loads(rest) == {
        "error": {
            "message": "the response was cut off: the connection to the upstream was lost",
            "type": "upstream_error",
            "param": None,
            "code": "upstream_aborted",
        }
    }
    assert data
    assert event.endswith(b"\n\n")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: {}\n\n", True),
        (b"data:{}", True),
        (b": ping", True),
        (b"event: message\n", True),
        (b"id: 1\n", True),
        (b"retry: 3\n", True),
        (b"\xef\xbb\xbf\r\n\ndata: {}", True),
        (b'{"choices": []}', False),
        (b"  data: {}", False),
        (b"<html>", False),
        (b"database is down", False),
        (b"error: no", False),
        (b"", None),
        (b"\n\n", None),
        (b"\xef\xbb", None),
        (b"dat", None),
        (b"\n\neven", None),
    ],
)
def test_the_first_bytes_of_a_body_show_an_event_stream(body: bytes, expected: bool | None) -> None:  # noqa: FBT001
    assert begins_like_events(body) is expected
