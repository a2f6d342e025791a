"""The reader of paced streams finds every kind of fault; one that finds none would prove nothing."""

import pytest

from tests.benchmarks.scenarios import EventReader, Tally
from tests.benchmarks.wire import DONE, paced_event


def fed(*events: bytes) -> tuple[EventReader, Tally]:
    tally = Tally()
    reader = EventReader("mine", tally)
    for piece in b"".join(events).partition(b"chunk"):  # cut inside the first event
        reader.feed(piece)
    return reader, tally


def numbered(*numbers: int) -> list[bytes]:
    return [paced_event("mine", number, 0) for number in numbers]


def test_a_whole_stream_has_no_fault() -> None:
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
    reader, tally = fed(*events)
    assert reader.whole
    assert tally.failures == {fault: 1}
    assert len(tally.latencies_ms) == timed


@pytest.mark.parametrize("events", [numbered(0, 1), [*numbered(0), DONE, b"data: "]])
def test_a_stream_cut_short_is_not_whole(events: list[bytes]) -> None:
    assert not fed(*events)[0].whole
