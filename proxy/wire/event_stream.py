"""Event-stream framing: cut a byte stream after whole events, limit their size, see how the stream ended.

The bytes themselves do not change. An event ends at a blank line; lines end with LF, CRLF or CR
(https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
"""

import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from proxy.wire.characters import CR
from proxy.wire.headers import Headers, find_header, media_type

_COLON: Final = ord(":")
EVENT_STREAM: Final = b"text/event-stream"
HEARTBEAT: Final = b": heartbeat\n\n"
"""A comment, which clients ignore; it shows that the connection is alive."""

# "\r\n" is one line end and must not match as two, so "?+" is possessive.
EVENT_END: Final = re.compile(rb"(?:\r\n?+|\n)(?:\r\n?+|\n)")
_TO_LAST_END: Final = re.compile(rb"(?s:.*)" + EVENT_END.pattern)
END_MARKER: Final = b"[DONE]"
_BEFORE_END_MARKER: Final = re.compile(rb"(?:^|[\r\n])data:[ \t]*$")
_BEFORE_END_MARKER_BYTES_MAX: Final = 16
# Some gateways write an empty text in each chunk before the last one.
_FINISH_REASON: Final = re.compile(rb'"finish_reason"\s*:\s*"[^"]')
_DATA: Final = re.compile(rb"(?:^|[\r\n])data:([^\r\n]*+)")
_DATA_LINES_MAX: Final = 10_000
"""An event with more lines counts as cut off, because each line takes time."""
_ANY_VALUE: Final = msgspec.json.Decoder(msgspec.Raw)
BOM: Final = b"\xef\xbb\xbf"
_BEFORE_FIELDS: Final = re.compile(rb"(?:" + BOM + rb")?+[\r\n]*+")
_FIELDS: Final = (b":", b"data:", b"event:", b"id:", b"retry:")
_FIELD: Final = re.compile(rb"|".join(_FIELDS))
_FIELD_BYTES_MAX: Final = max(map(len, _FIELDS))
_BLANK_BYTES_MAX: Final = 4096
# Only the last pieces are kept, and searched once, at the end of the stream.
_RECENT_PIECES: Final = 8
LARGE_PIECE_BYTES: Final = 512 * 1024
"""A piece of this size holds a large event, such as an image. Of several, only the last one is kept."""


def is_event_stream(headers: Headers) -> bool:
    """Whether the headers of a response announce an event stream."""
    return media_type(find_header(headers, b"content-type")) == EVENT_STREAM


class EventFramer:
    """Cuts a byte stream into whole events."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._tail = bytearray()
        self._recent: deque[bytes] = deque(maxlen=_RECENT_PIECES)
        self._is_marked: bool | None = False
        """The last value of `marked`; None if there are newer events."""
        self.events = 0
        """The number of whole blocks so far, including comments."""
        self.flushed = False
        """Whether the body was complete, so that `flush` was called."""
        self.cut = False
        """Whether `flush` dropped the beginning of an event."""

    def feed(self, chunk: bytes) -> bytes:
        """Add received bytes; return the whole events so far that were not returned yet, possibly none.

        Check `too_large` afterwards. If it is true, stop feeding.
        """
        if not self._tail and chunk.endswith(b"\n\n"):
            return self._count(chunk)  # The common case: whole events, nothing is copied.
        searched = max(0, len(self._tail) - 3)  # The blank line may straddle two chunks.
        self._tail += chunk
        end = self._last_end(searched)
        if not end:
            return b""
        whole = bytes(self._tail[:end])
        del self._tail[:end]
        return self._count(whole)

    @property
    def too_large(self) -> bool:
        """Whether the unfinished event exceeds the size limit."""
        return len(self._tail) > self._max_event_bytes

    def flush(self, *, drop_cut: bool = False) -> bytes:
        """Return the bytes after the last blank line, once the body is complete.

        Args:
            drop_cut: Drop these bytes if they are an event that was cut off. After an end marker nothing is
                dropped.
        """
        self.flushed = True
        tail = bytes(self._tail)
        self._tail.clear()
        self.cut = drop_cut and bool(tail) and not self.marked and not _is_whole(tail)
        return b"" if self.cut or not tail else self._count(tail)

    def _last_end(self, start: int) -> int:
        if self._tail.find(b"\r", start) < 0:
            found = self._tail.rfind(b"\n\n", start)
            return found + 2 if found >= 0 else 0
        last = _TO_LAST_END.match(self._tail, start)
        return last.end() if last else 0

    @property
    def recent(self) -> bytes:
        """The last events of the stream."""
        return b"".join(self._recent)

    @property
    def finished(self) -> bool:
        """Whether an end marker or a finish_reason was among the last events."""
        return self.marked or bool(_FINISH_REASON.search(self.recent))

    @property
    def marked(self) -> bool:
        """Whether the end marker was among the last events."""
        if self._is_marked is None:
            recent = self.recent
            marker = recent.rfind(END_MARKER)
            start = max(0, marker - _BEFORE_END_MARKER_BYTES_MAX)
            self._is_marked = marker >= 0 and bool(_BEFORE_END_MARKER.search(recent, start, marker))
        return self._is_marked

    def _count(self, whole: bytes) -> bytes:
        self.events += count_events(whole) if CR in whole else whole.count(b"\n\n")  # A call takes longer.
        if whole[0] == _COLON and not _DATA.search(whole):
            return whole  # Comments must not displace the pieces in which the end and the usage are searched.
        if len(whole) > LARGE_PIECE_BYTES:
            small = [piece for piece in self._recent if len(piece) <= LARGE_PIECE_BYTES]
            self._recent = deque(small, maxlen=_RECENT_PIECES)
        self._recent.append(whole)
        self._is_marked = None
        return whole


def count_events(whole_events: bytes) -> int:
    """Return the number of blocks that end with a blank line."""
    # Each line end becomes one LF, so that a blank line is two; a list of the ends would be large.
    lines = whole_events.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if CR in whole_events else whole_events
    return lines.count(b"\n\n")


def find_ends(whole_events: bytes) -> Iterator[int]:
    """Yield the place after each blank line."""
    if CR in whole_events:
        yield from (end.end() for end in EVENT_END.finditer(whole_events))
        return
    place = whole_events.find(b"\n\n")  # The expression takes ten times as long.
    while place >= 0:
        yield place + 2
        place = whole_events.find(b"\n\n", place + 2)


def _is_whole(tail: bytes) -> bool:
    """Whether these events are whole, except for missing blank lines after or between them."""
    lines = [line[1].strip() for line in islice(_DATA.finditer(tail), _DATA_LINES_MAX + 1)]
    if len(lines) > _DATA_LINES_MAX:
        return False
    if not any(lines):
        return not tail.strip(b"\r\n") or tail.startswith(b":")
    return _is_payload(b"\n".join(lines)) or all(map(_is_payload, lines))


def _is_payload(payload: bytes) -> bool:
    try:
        return payload == END_MARKER or bytes(_ANY_VALUE.decode(payload)) != b"null"
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False


def holds_event(body: bytes | bytearray) -> bool:
    """Whether the beginning of a stream contains a whole event."""
    return body.find(b"\n\n") >= 0 or EVENT_END.search(body) is not None


def begins_like_events(body: bytes | bytearray) -> bool | None:
    """Whether the first bytes of a body are those of an event stream; None if there are too few bytes.

    Like event-stream parsers, skip blank lines and a byte order mark before the first field.
    """
    before = _BEFORE_FIELDS.match(body)
    start = before.end() if before else 0
    first = bytes(body[start : start + _FIELD_BYTES_MAX])
    if _FIELD.match(first):
        return True
    is_cut = any(field.startswith(first) for field in (BOM, *_FIELDS))
    return None if is_cut and start < _BLANK_BYTES_MAX else False
