"""Repair thousands of broken streams: an independent reader finds the same content, or one error.

`PROXY_TEST_STREAMS=50000` repairs that many instead of 2,000, each with every set.
"""

import os

import pytest

from proxy.errors import InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.event_stream import EventFramer, holds_event
from proxy.wire.repairs import REPAIRS, SETS, Call, EmbeddedError, StreamRepairer, resolve
from proxy.wire.repairs.repair import find_steps
from tests.wire.repairs.comparison import Comparison, replaced
from tests.wire.repairs.corpus import Sample, samples
from tests.wire.repairs.reading import read_blocks, read_object, tells_error

STREAMS = int(os.environ.get("PROXY_TEST_STREAMS", "2000"))
PARTS = 4
OF_CHAT = frozenset(
    name
    for name in REPAIRS
    if not find_steps(resolve([name]), "stream", Shape.COMPLETION)
    and find_steps(resolve([name]), "stream", Shape.CHAT)
)
"""These do not change plain completions."""
CHOSEN = [*SETS, "all"]
APART = "text_arguments"
"""It adds parts to calls without arguments, which the comparison does not support; other tests cover it."""


def names_of(chosen: str) -> list[str]:
    return [name for name in (REPAIRS if chosen == "all" else SETS[chosen]) if name != APART]


def relayed(sample: Sample, chosen: str) -> bytes | EmbeddedError | InvalidResponse:
    """Return what a client receives, as the relay does but without the network."""
    repairs = resolve(names_of(chosen))
    repairer = StreamRepairer(repairs, Call(sample.shape, usage_requested=sample.usage_requested))
    framer = EventFramer(1 << 24)
    pieces, beginning = iter(sample.pieces), b""
    for piece in pieces:
        beginning += piece
        if holds_event(beginning):
            break
    try:
        error = repairer.first_error(EventFramer(1 << 24).feed(beginning))
    except InvalidResponse as invalid:
        return invalid
    if error is not None:
        return error
    out = [repairer.feed(framer.feed(piece)) for piece in (beginning, *pieces)]
    return b"".join([*out, repairer.feed(framer.flush()), repairer.finish()])


def begins_with_error(stream: bytes) -> bool:
    """Whether the first event is an error, no text, or no event at all."""
    for read in read_blocks(stream):
        block = read if read.sound else replaced(read)
        if not block.sound:
            return True
        if block.data and block.data.strip():
            chunk = read_object(block.data)
            return chunk is None or tells_error(chunk)
        if not any(line.startswith((b":", b"data", b"event", b"id", b"retry")) for line in block.lines[:1]):
            return True
    return False


def check(sample: Sample, chosen: str) -> None:
    out = relayed(sample, chosen)
    if not isinstance(out, bytes):
        assert begins_with_error(sample.whole)
    else:
        names = frozenset(repair.name for repair in resolve(names_of(chosen)).enabled)
        if sample.shape is Shape.COMPLETION:
            names -= OF_CHAT
        chat = sample.shape is Shape.CHAT
        Comparison(names, asked=sample.usage_requested, chat=chat).check(sample.whole, out)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.timeout(1800)
def test_a_broken_stream_keeps_its_content_or_becomes_an_error(part: int) -> None:
    thorough = STREAMS > 2000
    for sample in samples(range(part, STREAMS, PARTS)):
        mine = CHOSEN if thorough else ["all", [*SETS][sample.number // PARTS % len(SETS)]]
        for chosen in mine:
            try:
                check(sample, chosen)
            except Exception as error:
                error.add_note(f"stream {sample.number} ({sample.vendor}) through {chosen}")
                raise
