"""The reader of paced streams finds every kind of fault; one that finds none would prove nothing."""

import pytest

from tests.benchmarks.events import EventReader
from tests.benchmarks.rounds import Tally
from tests.benchmarks.wire import DONE, event, paced_event, text_of


def fed(*events: bytes, expected: int = 3) -> tuple[EventReader, Tally]:
    tally = Tally()
    reader = EventReader("mine", expected, tally)
    for piece in b"".join(events).partition(b"chunk"):  # cut inside the first event
        reader.feed(piece)
    return reader, tally


def numbered(*numbers: int) -> list[bytes]:
    return [paced_event("mine", number, 0) for number in numbers]


def test_a_complete_stream_has_no_fault() -> None:
    reader, tally = fed(*numbered(0, 1, 2), DONE)
    assert reader.whole
    assert len(tally.latencies_ms) == 3
    assert not tally.failures


@pytest.mark.parametrize(
    ("events", "fault", "timed"),
    [
        ([*numbered(0, 1, 1), DONE], "doubled", 2),
        ([*numbered(0, 2, 1), DONE], "reordered", 3),
        ([*numbered(0), DONE, *numbered(1)], "reordered", 2),
        ([*numbered(0), DONE, DONE], "doubled", 1),
        ([*numbered(0), paced_event("other", 1, 0), DONE], "foreign", 1),
        ([*numbered(0), b": ping\n\n", DONE], "altered", 1),
    ],
)
def test_a_fault_is_counted_once(events: list[bytes], fault: str, timed: int) -> None:
    reader, tally = fed(*events, expected=timed)
    assert reader.whole
    assert tally.failures == {fault: 1}
    assert len(tally.latencies_ms) == timed


@pytest.mark.parametrize(
    ("events", "expected"),
    [(numbered(0, 1), 2), ([*numbered(0), DONE, b"data: "], 1), ([*numbered(0, 1), DONE], 3)],
)
def test_a_truncated_stream_is_not_complete(events: list[bytes], expected: int) -> None:
    assert not fed(*events, expected=expected)[0].whole


def test_the_gaps_between_events_are_timed() -> None:
    _, tally = fed(*numbered(0, 1, 2), DONE)
    assert len(tally.gaps_ms) == 2


def test_a_rewritten_stream_needs_its_texts_and_no_end_marker() -> None:
    tally = Tally()
    reader = EventReader("mine", 2, tally, exact=False)
    reader.feed(b'data:{"choices": [{"delta": {"role": "assistant"}}]}\n\n')
    for number in range(2):
        reader.feed(b'data:{"choices": [{"delta": {"content": "mine %d 0"}, "x": 1}]}\n\n' % number)
    assert reader.whole
    assert not tally.failures
    reader.feed(b'data:{"choices": [{"delta": {"content": "other 2 0"}}]}\n\n')
    assert tally.failures == {"foreign": 1}


def test_a_response_has_the_same_text_as_its_stream() -> None:
    assert text_of(b'{"choices": [{"message": {"content": "a b"}}]}') == "a b"
    assert text_of(event("one", "a ") + event("two", "b") + DONE) == "a b"
