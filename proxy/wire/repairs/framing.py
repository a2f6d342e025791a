"""Event streams taken apart into blocks and lines, and put together again.

Lines end with LF, CRLF or CR, and a blank line ends a block
(https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
"""

import re
from collections.abc import Sequence
from typing import Final

# As in the framer: "\r\n" is one line end, hence the possessive "?+".
_BLOCK_END: Final = re.compile(rb"(?:\r\n?+|\n)(?:\r\n?+|\n)")
_AT_BLOCK_END: Final = re.compile(_BLOCK_END.pattern + rb"\Z")
_LINE_END: Final = re.compile(rb"\r\n?+|\n")
_DATA: Final = re.compile(rb"data(?::|$)")
_EVENT: Final = re.compile(rb"(?:event|id|retry)(?::|$)")
EVENT_LINES_SIGN: Final = re.compile(rb"(?:^|[\r\n])(?:event|id|retry|:)")
"""Without it there is no line that `drop_event_lines` would touch."""


def split_events(whole_events: bytes) -> list[bytes]:
    """The blocks, each with its end; joined they are the input."""
    blocks, start = [], 0
    for end in _BLOCK_END.finditer(whole_events):
        blocks.append(whole_events[start : end.end()])
        start = end.end()
    if start < len(whole_events):
        blocks.append(whole_events[start:])
    return blocks


def ends_block(piece: bytes) -> bool:
    """Whether the last block of a piece has its end."""
    return not piece or _AT_BLOCK_END.search(piece[-4:]) is not None


def read_payload(block: bytes) -> bytes | None:
    """What the `data:` lines of a block say; None where it has none."""
    said = [line[5:].removeprefix(b" ") for line in _lines(block) if _DATA.match(line)]
    return b"\n".join(said) if said else None


def rewrite(block: bytes, payloads: Sequence[bytes]) -> bytes:
    """A block with other data: none, or several, which become blocks of their own.

    Its other lines stay before the first; of a block without data only the comments stay.
    """
    others = [line for line in _lines(block) if not _DATA.match(line)]
    if not payloads:
        return _block([line for line in others if line.startswith(b":")])
    first, *more = (b"data: " + payload.replace(b"\n", b"\ndata: ") for payload in payloads)
    return b"".join([_block([*others, first]), *(_block([data]) for data in more)])


def drop_event_lines(block: bytes) -> bytes:
    """A block without `event:`, `id:` and `retry:`; its comments stand in a block before it."""
    lines = _lines(block)
    comments = [line for line in lines if line.startswith(b":")]
    fields = [line for line in lines if not line.startswith(b":")]
    kept = [line for line in fields if not _EVENT.match(line)]
    if kept == fields and not (kept and comments):
        return block
    return _block(comments) + _block(kept)


def lf_newlines(piece: bytes, *, after_cr: bool) -> bytes:
    """Every line end as LF.

    Args:
        piece: Some of the stream.
        after_cr: Whether the piece before ended with a CR, which a LF at the beginning belongs to.
    """
    if after_cr:
        piece = piece.removeprefix(b"\n")
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


def _lines(block: bytes) -> list[bytes]:
    """The lines without their ends and without blank ones."""
    return [line for line in _LINE_END.split(block) if line]


def _block(lines: Sequence[bytes]) -> bytes:
    return b"\n".join(lines) + b"\n\n" if lines else b""
