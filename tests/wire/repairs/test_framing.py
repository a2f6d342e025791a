"""Blocks and lines: split without loss, and all line ends replaced by LF."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.wire.event_stream import EventFramer
from proxy.wire.repairs import SETS
from proxy.wire.repairs.framing import (
    drop_event_lines,
    ends_block,
    is_utf8,
    read_payload,
    rewrite,
    split_events,
)
from tests.wire.repairs.streams import cut, repair

LINES = st.lists(
    st.tuples(
        st.sampled_from(
            [b"data: {}", b"data:x", b": ping", b"event: e", b"id", b"retry:3", b"", b"", b"other"]
        ),
        st.sampled_from([b"\n", b"\r\n", b"\r"]),
    ).map(b"".join),
    max_size=20,
)


def meaning(stream: bytes) -> list[bytes]:
    """Return the data of every event."""
    return [payload for block in split_events(stream) if (payload := read_payload(block)) is not None]


@given(LINES)
def test_joined_blocks_are_the_stream(lines: list[bytes]) -> None:
    assert b"".join(split_events(b"".join(lines))) == b"".join(lines)


@pytest.mark.parametrize(
    ("block", "payload"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\r\n\r\n", b"{}"),
        (b"\ndata:  x\r\r", b" x"),
        (b"event: e\ndata: a\ndata: b\n\n", b"a\nb"),
        (b"data\n\n", b""),
        (b": data: x\n\n", None),
        (b"database: x\n\n", None),
    ],
)
def test_the_data_of_a_block_is_read(block: bytes, payload: bytes | None) -> None:
    assert read_payload(block) == payload


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\n\n"])
def test_the_end_of_a_block_is_known(end: bytes) -> None:
    assert ends_block(b"data: x" + end)
    assert ends_block(b"")
    assert not ends_block(b"\n\nx\n")
    assert not ends_block(b"\n\nx\r\n")


def test_a_rewritten_block_keeps_its_other_lines() -> None:
    assert rewrite(b": c\nevent: e\r\ndata: x\r\n\r\n", [b"1", b"2\n3"]) == (
        b": c\nevent: e\ndata: 1\n\ndata: 2\ndata: 3\n\n"
    )
    assert rewrite(b": c\nevent: e\ndata: x\n\n", []) == b": c\n\n"
    assert rewrite(b"event: e\ndata: x\n\n", []) == b""


@pytest.mark.parametrize(
    ("block", "left"),
    [
        (b"event: message\ndata: {}\n\n", b"data: {}\n\n"),
        (b"id:1\r\nevent\r\nretry: 3\r\ndata: {}\r\n\r\n", b"data: {}\n\n"),
        (b"event: ping\n\n", b""),
        (b": keep-alive\ndata: {}\n\n", b": keep-alive\n\ndata: {}\n\n"),
        (b": keep-alive\n\n", b": keep-alive\n\n"),
        (b"data: {}\r\n\r\n", b"data: {}\r\n\r\n"),
        (b'data: {"id": 1}\n\n', b'data: {"id": 1}\n\n'),
        (b"\n\n", b"\n\n"),
    ],
)
def test_event_lines_are_dropped_and_comments_get_separate_blocks(block: bytes, left: bytes) -> None:
    assert drop_event_lines(block) == left


@given(LINES, st.lists(st.integers(0, 200), max_size=6))
def test_all_line_ends_become_lf_whatever_the_cuts(lines: list[bytes], at: list[int]) -> None:
    stream = b"".join(lines)
    framer = EventFramer(1 << 20)
    letters = [stream[place : place + 1] for place in range(len(stream))]
    pieces = [*map(framer.feed, cut(letters, at)), framer.flush()]
    out = repair(["lf_newlines"], *pieces)
    assert out == stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert meaning(out) == meaning(stream)


@given(LINES)
def test_dify_reads_only_data_and_comments(lines: list[bytes]) -> None:
    stream = b"".join(lines)
    for_dify = ["lf_newlines", "drop_event_lines"]
    out = repair(for_dify, stream)
    assert meaning(out) == meaning(stream)
    assert repair(for_dify, out) == out
    for block in out.split(b"\n\n"):
        fields = [line for line in block.split(b"\n") if line]
        assert not any(line.startswith((b"event", b"id", b"retry")) for line in fields)
        assert len({line.startswith(b":") for line in fields}) <= 1


@pytest.mark.parametrize(("piece", "valid"), [(b"x", True), ("你".encode(), True), (b"\xe4\xbd", False)])
def test_invalid_utf8_is_detected(piece: bytes, valid: bool) -> None:  # noqa: FBT001 - a table
    assert is_utf8(piece) is valid


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(b'data: {"choices":[{"delta":{"content":"a"}}]}', b": ping", b"data: [DONE]", b""),
                *(b'data: {"choices":[{}]}', b'data: {"choices":[]}', b'data: {"choices":[{"delta":null}]}'),
                *(
                    b'id: 1\ndata: {"choices":[{"delta":{"content":["a"]}}]}',
                    b'data: {"choices":\ndata: [{}]}',
                ),
            ]
        ),
        st.sampled_from([b"\n", b"\r\n", b"\r"]),
        st.sampled_from([2, 2, 2, 3, 4]),
    ).map(lambda parts: parts[0].replace(b"\n", parts[1]) + parts[1] * parts[2]),
    max_size=4,
)


@pytest.mark.parametrize("name", [*SETS, "drop_unasked_chunks"])
@given(EVENTS)
@example([b'data: {"choices":[{"delta":null}]}\r\r\r', b'data: {"choices":[]}\r\n\r\n\r\n\r\n'])
def test_any_cut_of_a_stream_gives_the_same_bytes(name: str, events: list[bytes]) -> None:
    """TCP cuts anywhere, and a reader drops an event if a line end before it is lost."""
    stream = b"".join([b'data: {"choices":[{}]}\r\n\r\n', *events])

    def repaired(*chunks: bytes) -> bytes:
        framer = EventFramer(1 << 20)
        return repair([name], *map(framer.feed, chunks), framer.flush())

    whole = repaired(stream)
    for place in (each.end() for each in re.finditer(rb"[\r\n]", stream)):
        assert repaired(stream[:place], stream[place:]) == whole, place
