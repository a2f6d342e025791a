"""Repairs of event streams, event by event: none waits for another."""

import re
from typing import Final

from proxy.errors import Aborted, InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.event_stream import error_event
from proxy.wire.repairs.catalogue import Repairs
from proxy.wire.repairs.chat_chunks import CHUNK_REPAIRS, StreamMemory
from proxy.wire.repairs.framing import (
    EVENT_LINES_SIGN,
    drop_event_lines,
    ends_block,
    is_utf8,
    lf_newlines,
    read_payload,
    rewrite,
    split_events,
)
from proxy.wire.repairs.shallow_json import Members, is_text, open_object, to_json, write
from proxy.wire.repairs.vendor_errors import (
    OPENAI_SIGN,
    VENDOR_SIGN,
    ErrorInside,
    read_minimax_refusal,
    read_openai_error,
    read_vendor_error,
)

_CHUNKED: Final = frozenset({Shape.CHAT, Shape.COMPLETION})
_MARK: Final = b"\xef\xbb\xbf"
"""A byte order mark: readers pass over it, but not over one that stands before a field's name."""
_NO_EVENT: Final = re.compile(rb"\s*[{<]")
_END_MARKER: Final = b"[DONE]"
_NO_ANSWER: Final = ErrorInside(
    InvalidResponse.status, InvalidResponse.message, InvalidResponse.type, InvalidResponse.code
)
_NOT_UTF8: Final = "the response was cut off: the upstream sent text that is not UTF-8"


class StreamRepairer:
    """Repair one stream; every event that no repair changes comes out as it went in.

    Args:
        repairs: What is on.
        shape: Of the answer; None where no repair applies.
        usage_asked: Whether the client set `stream_options.include_usage`.
    """

    def __init__(self, repairs: Repairs, shape: Shape | None, *, usage_asked: bool) -> None:
        on = frozenset(repairs.stream)
        self.accepts_missing_end = "accept_missing_end" in on
        """Whether a stream may end with neither an end marker nor a finish_reason."""
        self._lf = "lf_newlines" in on
        self._utf8 = "utf8" in on
        self._event_lines = "drop_event_lines" in on and shape in _CHUNKED
        self._vendor_errors = "vendor_errors" in on and shape is not None
        self._true_errors = "true_errors" in on and shape is not None
        known = [CHUNK_REPAIRS[name] for name in repairs.stream if name in CHUNK_REPAIRS]
        self._repairs = [repair for repair in known if shape in repair.shapes]
        self._signs = [repair.sign for repair in self._repairs]
        self._signs += [VENDOR_SIGN] * self._vendor_errors + [OPENAI_SIGN] * self._true_errors
        self._memory = StreamMemory(usage_asked)
        self._begun = not repairs.stream  # then nothing is read, and a mark stays
        self._after_cr = False
        self._last = b""
        self.ended = False
        """Whether an error of ours has ended the stream: nothing more comes out of it."""

    def first(self, whole_events: bytes) -> ErrorInside | None:
        """The error that a stream begins with, for a true status; what says nothing is passed over.

        Args:
            whole_events: What will be fed first; nothing is remembered of it.
        """
        for block in split_events(whole_events.removeprefix(_MARK)):
            if self._utf8 and not is_utf8(block):
                return _NO_ANSWER
            payload = read_payload(block)
            if payload:
                return self._find_error(open_object(payload))
            if self._true_errors and _NO_EVENT.match(block):
                return self._find_error(open_object(block)) or _NO_ANSWER
        return None

    def feed(self, whole_events: bytes) -> bytes:
        """Whole events as clients read them; the same object where nothing changed."""
        if self.ended:
            return b""
        if not self._begun and whole_events:
            self._begun = True
            whole_events = whole_events.removeprefix(_MARK)
        if self._lf and whole_events:
            after_cr, self._after_cr = self._after_cr, whole_events.endswith(b"\r")
            whole_events = lf_newlines(whole_events, after_cr=after_cr)
        if self._concerns(whole_events):
            whole_events = b"".join([self._repaired(block) for block in split_events(whole_events)])
        self._last = whole_events or self._last
        return whole_events

    def finish(self) -> bytes:
        """What is still to be said at a proper end."""
        told = self._owed()
        return told if not told or ends_block(self._last) else b"\n\n" + told

    def _owed(self) -> bytes:
        owed, self._memory.owed = self._memory.owed, None
        return b"" if owed is None or self.ended else rewrite(b"", [to_json(owed)])

    def _concerns(self, events: bytes) -> bool:
        """Whether any repair may have to do with these events: nothing is parsed for it."""
        return (
            any(sign.search(events) for sign in self._signs)
            or (self._memory.owed is not None and _END_MARKER in events)
            or (self._event_lines and EVENT_LINES_SIGN.search(events) is not None)
            or (self._utf8 and not is_utf8(events))
        )

    def _repaired(self, block: bytes) -> bytes:
        if self.ended:
            return b""
        if self._utf8 and not is_utf8(block):
            self.ended = True
            return error_event(Aborted(_NOT_UTF8).envelope())
        if self._event_lines:  # comments become a block of their own
            return b"".join([self._changed(part) for part in split_events(drop_event_lines(block))])
        return self._changed(block)

    def _changed(self, block: bytes) -> bytes:
        if self._memory.owed is not None and _END_MARKER in block and read_payload(block) == _END_MARKER:
            return self._owed() + block
        if not any(sign.search(block) for sign in self._signs):
            return block
        payload = read_payload(block)
        chunk = open_object(payload)
        if payload is None or chunk is None:
            return block
        chunks = self._change(chunk, payload)
        return block if chunks is None else rewrite(block, [to_json(new) for new in chunks])

    def _change(self, chunk: Members, payload: bytes) -> list[Members] | None:
        """The chunks that take the place of one; None where it stays."""
        told = self._tell_error(chunk)
        changed, chunks = told is not None, [chunk] if told is None else told
        for repair in self._repairs:
            if not repair.sign.search(payload):
                continue
            done: list[Members] = []
            for each in chunks:
                new = repair.change(each, self._memory)
                done += [each] if new is None else new
                changed = changed or new is not None
            chunks = done
        return chunks if changed else None

    def _tell_error(self, chunk: Members) -> list[Members] | None:
        """An error in the shape that clients know; one that has it stays."""
        if self._vendor_errors:
            error = read_vendor_error(chunk)
            if error is not None:
                return [_as_members(error)]
            refusal = read_minimax_refusal(chunk)
            if refusal is not None:
                said = {name: value for name, value in chunk.items() if name != "base_resp"}
                return [said, _as_members(refusal)]
        error = read_openai_error(chunk) if self._true_errors else None
        return None if error is None or _is_told(chunk) else [_as_members(error)]

    def _find_error(self, chunk: Members | None) -> ErrorInside | None:
        if chunk is None:
            return None
        error = read_openai_error(chunk) if self._true_errors else None
        return error or (read_vendor_error(chunk) if self._vendor_errors else None)


def _is_told(chunk: Members) -> bool:
    """Whether an error has the words that clients show."""
    error = open_object(chunk["error"])
    return error is not None and is_text(error.get("message"))


def _as_members(error: ErrorInside) -> Members:
    return {name: write(value) for name, value in error.envelope().items()}
