"""Blocks and lines: split without loss, and all line ends replaced by LF."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.event_stream import EventFramer
from proxy.wire.repairs.framing import (
    drop_event_lines,
    ends_block,
    is_utf8,
    lf_newlines,
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


def test_a_crlf_that_was_cut_is_one_line_end() -> None:
    assert lf_newlines(b"\ndata: b\r", after_cr=True) == b"data: b\n"
    assert lf_newlines(b"\ndata: b\r", after_cr=False) == b"\ndata: b\n"


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
