"""Floods of tiny events are repaired in small parts, with the same bytes as at once."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.endpoints import Shape
from proxy.wire.event_stream import EventFramer
from proxy.wire.repairs import REPAIRS, StreamRepairer, framing, read_call, resolve
from proxy.wire.repairs.framing import PART_EVENTS, cut_events, split_events
from proxy.wire.stream_errors import find_error_code
from tests.linear_time import chunks

CALL = read_call(Shape.CHAT, b'{"model":"a","stream":true}')
FLOODS = (
    *(b"\n\n", b"\r\r", b"\r\n\r\n", b":\n\n", b"data\n\n", b"data:\n\n", b"data: {}\n\n", b"\xff\n\n"),
    *(b'data: {"choices":[]}\n\n', b'event: a\ndata: {"choices":[{"delta":{"tool_calls":[{}]}}]}\n\n'),
)
PIECES = st.lists(
    st.sampled_from(
        [
            *(b"\n", b"\r", b"\r\n", b"\n\n", b": c\n", b"event: a\n", b"data: [DONE]\n\n", b"data: 1\r\n"),
            *(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', b'data: {"choices":[]}\r\n\r\n'),
            *(b'data: {"error":{"message":"m"}}\n\n', b'data: {"a":\ndata: 1}\n\n', b"data: \xff\n\n"),
        ]
    ),
    max_size=30,
)


@pytest.mark.parametrize("flood", FLOODS)
def test_a_part_of_a_flood_holds_few_events(flood: bytes) -> None:
    stream = flood * (4 * PART_EVENTS + 1)
    parts = [*cut_events(stream)]
    assert b"".join(parts) == stream
    assert [len(split_events(part)) for part in parts] == [PART_EVENTS] * 4 + [1]
    assert len([*StreamRepairer(resolve(["ragflow"]), CALL).feed_in_parts(stream)]) == 5


def test_a_stream_of_few_events_is_not_copied() -> None:
    stream = b"data: 1\n\n" * PART_EVENTS
    assert [part is stream for part in cut_events(stream)] == [True]
    assert [*cut_events(b"")] == []


@given(PIECES, st.integers(1, 4), st.integers(1, 40))
def test_parts_of_any_size_give_the_same_bytes(pieces: list[bytes], part_events: int, size: int) -> None:
    stream = b"".join(pieces)

    def repair(most: int) -> tuple[bytes, str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(framing, "PART_EVENTS", most)
            framer, repairer = EventFramer(1 << 20), StreamRepairer(resolve(REPAIRS), CALL)
            repaired = [repairer.feed(framer.feed(chunk)) for chunk in chunks(stream, size)]
            repaired += [repairer.feed(framer.flush()), repairer.finish()]
            return b"".join(repaired), repairer.ended

    assert repair(part_events) == repair(1 << 20)


def test_an_error_after_a_flood_is_found() -> None:
    flood = b"\n\n" * (10 * PART_EVENTS)
    plain = b'data: {"error":{"code":"full"}}\n\n'
    escaped = b'data: {"\\u0065rror":{"code":"escaped"}}\n\n'
    assert find_error_code(flood + plain) == "full"
    assert find_error_code(escaped + flood + plain) == "escaped"


def test_the_search_for_a_first_error_ends() -> None:
    error = b'data: {"error":{"message":"m","code":"c"}}\n\n'
    empty = itertools.repeat(b": c\n\n")
    few, many = (b"".join(itertools.islice(empty, count)) for count in (PART_EVENTS - 1, PART_EVENTS))
    assert StreamRepairer(resolve(REPAIRS), CALL).first_error(few + error) is not None
    assert StreamRepairer(resolve(REPAIRS), CALL).first_error(many + error) is None
