"""Split event streams into blocks and lines, and join them again.

Lines end with LF, CRLF or CR, and a blank line ends a block
(https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from proxy.wire.event_stream import EVENT_END, find_ends

_AT_BLOCK_END: Final = re.compile(EVENT_END.pattern + rb"\Z")
_LINE_END: Final = re.compile(rb"\r\n?+|\n")
_DATA: Final = re.compile(rb"data(?::|$)")
_EVENT: Final = re.compile(rb"(?:event|id|retry)(?::|$)")
EVENT_LINES: Final = re.compile(rb"(?:^|[\r\n])(?:event|id|retry|:)")
"""A block without a match has no line that `drop_event_lines` would change."""


LINES_MAX: Final = 10_000
"""An event with more lines is relayed unrepaired, because each line takes time in every repair."""
_OTHER_LINE: Final = re.compile(rb"(?:^|[\r\n])(?:[^d\r\n]|d[^a]|da[^t]|dat[^a]|data[^:])")
_STARTS: Final = (b"data: {", b"data:{", b"data: [DONE]", b"data:[DONE]")
PART_EVENTS: Final = 100
"""Events repaired in one turn of the event loop. A short event takes up to 50 µs."""
PART_OBJECTS: Final = 1_000
"""Objects repaired in one turn; the last event may exceed it. A choice takes up to 20 µs."""
PART_BYTES: Final = 64 * 1024
"""Bytes of events repaired in one turn; the last event may exceed it."""


def cut_events(whole_events: bytes) -> Iterator[bytes]:
    """Cut a stream into parts that can each be repaired in one turn. A short stream is not copied."""
    start = 0
    if _is_long(whole_events):
        events = objects = before = 0
        for end in find_ends(whole_events):
            events += 1
            objects += whole_events.count(b"{", before, end)
            before = end
            if events == PART_EVENTS or objects >= PART_OBJECTS or end - start > PART_BYTES:
                yield whole_events[start:end]
                start, events, objects = end, 0, 0
    if start < len(whole_events):
        yield whole_events[start:]


def _is_long(whole_events: bytes) -> bool:
    """Whether a stream may be too long for one turn."""
    size = len(whole_events)
    if size > PART_BYTES or whole_events.count(b"\n") + whole_events.count(b"\r") > 2 * PART_EVENTS:
        return True  # An event has two line ends at least.
    return size > PART_OBJECTS and whole_events.count(b"{") > PART_OBJECTS


def split_events(whole_events: bytes) -> list[bytes]:
    """Split a stream into blocks, each with the blank line that ends it."""
    blocks, start = [], 0
    for end in find_ends(whole_events):
        blocks.append(whole_events[start:end])
        start = end
    if start < len(whole_events):
        blocks.append(whole_events[start:])
    return blocks


def separate_objects(whole_events: bytes) -> bytes:
    """Add the missing blank lines between data lines that each hold an object or the end marker.

    Between two objects of one JSON value there would be a comma. Blocks with other lines are left alone,
    because a field belongs to the data after it.
    """
    ends = [end for end in (b"\n", b"\r\n", b"\r") if b"}" + end + b"data:" in whole_events]
    if not ends:
        return whole_events
    return b"".join([_separate(block, ends) for block in split_events(whole_events)])


def _separate(block: bytes, ends: Sequence[bytes]) -> bytes:
    if _OTHER_LINE.search(block):
        return block
    for end in ends:
        for start in _STARTS:
            block = block.replace(b"}" + end + start, b"}" + end + end + start)
    return block


def ends_block(piece: bytes) -> bool:
    """Whether a piece of a stream ends with a whole block."""
    return not piece or _AT_BLOCK_END.search(piece[-4:]) is not None


def read_payload(block: bytes) -> bytes | None:
    """Return the joined `data:` lines of a block; None if it has none, or too many lines."""
    if has_too_many_lines(block):
        return None
    data = [line[5:].removeprefix(b" ") for line in _lines(block) if _DATA.match(line)]
    return b"\n".join(data) if data else None


def rewrite(block: bytes, payloads: Sequence[bytes]) -> bytes:
    """Return a block with other data. Each payload becomes one block.

    The lines without data stay in the first block. Without any payload only the comments stay. A blank line
    before the block stays in any case: it may as well have arrived with the block before.
    """
    others = [line for line in _lines(block) if not _DATA.match(line)]
    if not payloads:
        return _blank_line(block) + _block([line for line in others if line.startswith(b":")])
    first, *more = (b"data: " + payload.replace(b"\n", b"\ndata: ") for payload in payloads)
    return b"".join([_blank_line(block), _block([*others, first]), *(_block([data]) for data in more)])


def drop_event_lines(block: bytes) -> bytes:
    """Drop the `event:`, `id:` and `retry:` lines of a block, and move its comments to a block before it."""
    if has_too_many_lines(block):
        return block
    lines = _lines(block)
    comments = [line for line in lines if line.startswith(b":")]
    fields = [line for line in lines if not line.startswith(b":")]
    kept = [line for line in fields if not _EVENT.match(line)]
    if kept == fields and not (kept and comments):
        return block
    return _blank_line(block) + _block(comments) + _block(kept)


def lf_newlines(piece: bytes) -> bytes:
    """Replace every line end by LF."""
    if b"\r" not in piece:
        return piece
    return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def is_utf8(piece: bytes) -> bool:
    """Whether the bytes are valid UTF-8."""
    if piece.isascii():
        return True
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def has_too_many_lines(block: bytes) -> bool:
    """Whether a block has more lines than are repaired."""
    return block.count(b"\n") + block.count(b"\r") > LINES_MAX


def _lines(block: bytes) -> list[bytes]:
    """Split a block into its lines, without line ends and blank lines."""
    lines = _LINE_END.split(block) if b"\r" in block else block.split(b"\n")
    return [line for line in lines if line]


def _blank_line(block: bytes) -> bytes:
    """Return the blank line that a block begins with, if there is one."""
    return block[: len(block) - len(block.lstrip(b"\r\n"))]


def _block(lines: Sequence[bytes]) -> bytes:
    return b"\n".join(lines) + b"\n\n" if lines else b""
