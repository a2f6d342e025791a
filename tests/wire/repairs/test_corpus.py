"""Thousands of broken streams through the repairs: an independent reader finds the same, or one error.

`PROXY_TEST_STREAMS=50000` takes that many instead of 2,000, each through every set.
"""

import os

import pytest

from proxy.wire.endpoints import Shape
from proxy.wire.event_stream import EventFramer, holds_event
from proxy.wire.repairs import REPAIRS, SETS, ErrorInside, StreamRepairer, resolve
from tests.wire.repairs.comparison import Comparison
from tests.wire.repairs.corpus import Sample, samples
from tests.wire.repairs.reading import read_blocks, read_object, tells_error

STREAMS = int(os.environ.get("PROXY_TEST_STREAMS", "2000"))
PARTS = 4
OF_CHAT = frozenset({"fill_delta", "index_tool_calls", "split_finish"})
"""These leave plain completions alone."""
CHOSEN = [*SETS, "all"]


def names_of(chosen: str) -> list[str]:
    return [*REPAIRS] if chosen == "all" else [chosen]


def relayed(sample: Sample, chosen: str) -> bytes | ErrorInside:
    """What a client gets: as the relay does it, but for the network."""
    repairs = resolve(names_of(chosen))
    repairer = StreamRepairer(repairs, sample.shape, usage_asked=sample.usage_asked)
    framer = EventFramer(1 << 24)
    pieces, beginning = iter(sample.pieces), b""
    for piece in pieces:
        beginning += piece
        if holds_event(beginning):
            break
    error = repairer.first(EventFramer(1 << 24).feed(beginning))
    if error is not None:
        return error
    out = [repairer.feed(framer.feed(piece)) for piece in (beginning, *pieces)]
    return b"".join([*out, repairer.feed(framer.flush()), repairer.finish()])


def begins_with_error(stream: bytes) -> bool:
    """Whether the first event is an error, no text, or no event at all."""
    for block in read_blocks(stream):
        if not block.sound:
            return True
        if block.data:
            return tells_error(read_object(block.data) or {"choices": [1]})
        if b"\n".join(block.lines).lstrip()[:1] in (b"{", b"<"):
            return True
    return False


def check(sample: Sample, chosen: str) -> None:
    out = relayed(sample, chosen)
    if isinstance(out, ErrorInside):
        assert begins_with_error(sample.whole)
    else:
        names = frozenset(resolve(names_of(chosen)).names)
        if sample.shape is Shape.COMPLETION:
            names -= OF_CHAT
        Comparison(names, asked=sample.usage_asked).check(sample.whole, out)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.timeout(1800)
def test_a_broken_stream_says_the_same_repaired_or_is_an_error(part: int) -> None:
    thorough = STREAMS > 2000
    for sample in samples(range(part, STREAMS, PARTS)):
        mine = CHOSEN if thorough else ["all", [*SETS][sample.number // PARTS % len(SETS)]]
        for chosen in mine:
            try:
                check(sample, chosen)
            except Exception as error:
                error.add_note(f"stream {sample.number} ({sample.vendor}) through {chosen}")
                raise
