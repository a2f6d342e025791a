"""Repairs of event streams, event by event. No event is delayed until a later one."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from proxy.errors import Aborted, InvalidResponse
from proxy.wire.error_envelope import error_event
from proxy.wire.event_stream import BOM, END_MARKER
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.conversions import DONE, is_chat
from proxy.wire.repairs.framing import (
    EVENT_LINES,
    cut_events,
    drop_event_lines,
    ends_block,
    is_utf8,
    lf_newlines,
    read_payload,
    rewrite,
    separate_objects,
    split_events,
)
from proxy.wire.repairs.repair import CLIENTS, Repair, Repairs, StreamState, find_steps
from proxy.wire.repairs.responses import (
    UNWRAP_ANSWER,
    UTF8,
    find_error,
    is_lenient,
    read_leniently,
    replace_invalid,
    unwrap,
    write_strictly,
)
from proxy.wire.repairs.shallow_json import (
    Members,
    TooManyItems,
    holds_more,
    is_json,
    is_null,
    is_text,
    open_list,
    open_object,
    read_value,
    to_json,
    write,
)
from proxy.wire.repairs.usage import DROP_UNASKED_CHUNKS
from proxy.wire.repairs.vendor_errors import (
    TRUE_ERRORS,
    VENDOR_ERRORS,
    EmbeddedError,
    holds_error,
    read_minimax_rejection,
    read_text_beside,
)

ACCEPT_MISSING_END: Final = Repair(
    "accept_missing_end",
    "Accepts a chat or completion stream that ends with neither `[DONE]` nor a finish_reason, and "
    "adds `[DONE]`.",
    clients=(
        "all, if the upstream never sends either; the proxy then cannot detect every truncated response",
    ),
    stages=("stream",),
)
DROP_EVENT_LINES: Final = Repair(
    "drop_event_lines",
    "Drops `event:`, `id:` and `retry:` lines from a stream, and moves comments to separate blocks.",
    clients=("Dify, openai_api_compatible 0.0.63, which stops at a line that is not JSON",),
    sets=("dify",),
    stages=("stream",),
)
END_STREAM: Final = Repair(
    "end_stream",
    "Adds a missing blank line after the last event of a stream, and writes the end marker as `[DONE]`.",
    clients=("all with an OpenAI SDK, which ignores an event without a blank line after it",),
    sets=CLIENTS,
    stages=("stream",),
)
LF_NEWLINES: Final = Repair(
    "lf_newlines",
    "Replaces CRLF and CR as line ends of a stream by LF.",
    clients=("Dify, openai_api_compatible 0.0.63, which splits events only at two LF",),
    sets=("dify",),
    stages=("stream",),
)

DATA_LINES: Final = Repair(
    "data_lines",
    "Writes each event as one `data:` line if the upstream omits the blank lines between events or "
    "splits the JSON of one event over several lines.",
    clients=("all with an OpenAI SDK", "Dify and Continue, which read single lines"),
    sets=CLIENTS,
    stages=("stream",),
)


_FIELD: Final = re.compile(rb"(?:data|event|id|retry)?:|data[\r\n]")
_END_WORDS: Final = frozenset({b"[done]", b"done", b'"[done]"', b'"done"'})
"""Spellings of the end marker, in lower case."""
_NO_ANSWER: Final = "an event stream without an answer"
_BROKEN_OFF: Final = "the response was cut off, its end is invalid"
_OVERLOADED: Final = "the upstream reports an overload"
_RATE_WORDS: Final = re.compile(
    r"rate limit|429|tpm limit|too many requests|requests per minute", re.IGNORECASE
)
"""RAGFlow retries a request whose error has one of these words, whatever other words it has."""
_SERVER_WORDS: Final = re.compile(r"server|50[0234]|unavailable", re.IGNORECASE)
"""It also retries after these, but not after an error that is called invalid."""
EVENT_BYTES_MAX: Final = 1 << 20
"""A longer event, such as an image, is relayed unrepaired, because each MiB takes up to 50 ms."""
EVENT_OBJECTS_MAX: Final = 2_000
"""An event of more objects is relayed unrepaired, because a choice takes up to 20 µs."""
EVENT_MEMBERS_MAX: Final = 40_000
"""An event of more members is relayed unrepaired, because a member takes up to a microsecond."""
_CUT: Final = "the response was cut off: the upstream sent "


class _Delta(msgspec.Struct):
    """A delta that no repair changes, because it holds only text."""

    content: str | None = None
    tool_calls: None = None
    function_call: None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: None = None
    message: None = None
    error: None = None


class _Chunk(msgspec.Struct):
    """A chunk that no repair changes."""

    choices: list[_Choice]
    usage: None = None
    error: None = None
    base_resp: None = None


_PLAIN: Final = msgspec.json.Decoder(_Chunk)


class StreamRepairer:
    """Repairs one stream. Events that no repair changes are forwarded byte for byte."""

    def __init__(self, repairs: Repairs, call: Call) -> None:
        self._repairs = repairs = Repairs() if call.shape is None else repairs
        self._steps = find_steps(repairs, "stream", call.shape)
        self._state = StreamState(call)
        self._shape = call.shape
        self._is_chunked = is_chunked = is_chat(call)
        self._lf = LF_NEWLINES in repairs
        self._utf8 = UTF8 in repairs
        self._event_lines = DROP_EVENT_LINES in repairs and is_chunked
        self._vendor_errors = VENDOR_ERRORS in self._repairs
        self._true_errors = TRUE_ERRORS in self._repairs
        self._end = END_STREAM in repairs and is_chunked
        self._unwrap = UNWRAP_ANSWER in repairs and is_chunked
        self._data_lines = DATA_LINES in repairs and is_chunked
        self._drops_pings = DROP_UNASKED_CHUNKS in repairs and is_chunked
        self._accepts_missing_end = ACCEPT_MISSING_END in repairs and is_chunked
        self._parses = bool(
            self._steps
            or self._vendor_errors
            or self._true_errors
            or self._end
            or self._data_lines
            or self._accepts_missing_end
        )
        self._begun = False
        self._after_cr = False
        self._kept_cr = False
        """Whether the last block was returned with the CR at its end."""
        self._last = b""
        self._answered = False
        self._failed = False
        self._finished = False
        self._marked = False
        self.ended = ""
        """Why we have ended the stream with an error; `feed` then returns nothing more."""

    @property
    def accepts_missing_end(self) -> bool:
        """Whether the stream may end with neither an end marker nor a finish_reason."""
        return self._accepts_missing_end and self._answered

    def first_error(self, whole_events: bytes) -> EmbeddedError | None:
        """Return the error that a stream begins with; None if there is none.

        Such an error can still be sent with its own status. Events without data are skipped. After
        one part of them (`cut_events`) the search ends, because it takes time in the event loop.

        Args:
            whole_events: The first events, which have to be fed as well.

        Raises:
            InvalidResponse: This is not an event stream, or it contains no result.
        """
        try:
            return self._first_error(whole_events.removeprefix(BOM))
        except TooManyItems:
            return None

    def _first_error(self, whole_events: bytes) -> EmbeddedError | None:
        beginning = next(cut_events(whole_events), b"")
        beginning = next(cut_events(self._separate(beginning)), b"")
        for block in split_events(beginning):
            if _is_too_long(block):
                return None
            valid = (
                block
                if not self._utf8 or is_utf8(block)
                else replace_invalid(self._shape, block, read_payload)
            )
            if valid is None:
                raise InvalidResponse("text that is not valid UTF-8")
            payload = read_payload(valid)
            if not payload or not payload.strip():
                if self._true_errors and block.strip() and not _FIELD.match(block.lstrip(b"\r\n")):
                    return self._error_without_events(block)
                continue
            if self._true_errors and self._is_chunked:
                if payload.strip().lower() in _END_WORDS:
                    raise InvalidResponse(_NO_ANSWER)
                if not self._is_readable(payload):
                    raise InvalidResponse("an event that is not JSON")
            return self._read_error(payload)
        return None

    def _read_error(self, payload: bytes) -> EmbeddedError | None:
        event = open_object(payload)
        return None if event is None else find_error(self._repairs, event)

    def _is_readable(self, payload: bytes) -> bool:
        lines = payload.split(b"\n") if self._data_lines else ()
        return _is_json(payload) or (len(lines) > 1 and bool(open_object(lines[0])))

    def _error_without_events(self, block: bytes) -> EmbeddedError:
        error = self._read_error(block)
        if error is None:
            raise InvalidResponse("something other than events in an event stream")
        return error

    def feed(self, whole_events: bytes) -> bytes:
        """Repair whole events. Returns the same object if nothing changed."""
        return b"".join(self.feed_in_parts(whole_events))

    def feed_in_parts(self, whole_events: bytes) -> Iterator[bytes]:
        """Repair whole events, and yield them in parts, so that other tasks can run after each part."""
        if self.ended or not self._repairs:
            yield b"" if self.ended else whole_events
            return
        if not self._begun and whole_events:
            self._begun = True
            whole_events = whole_events.removeprefix(BOM)
        if whole_events:
            is_cut, self._after_cr = self._after_cr, whole_events.endswith(b"\r")
            if is_cut and whole_events.startswith(b"\n"):  # The second half of a CRLF, which TCP has cut.
                whole_events = whole_events[1:]
                if self._kept_cr:
                    yield b"\n"
            if self._lf:
                whole_events = lf_newlines(whole_events)
        for part in cut_events(whole_events):
            separated = self._separate(part)
            for piece in (part,) if separated is part else cut_events(separated):
                blocks = split_events(piece)
                repaired = [self._repair(block) for block in blocks]
                changed = piece if repaired == blocks else b"".join(repaired)
                if self._after_cr:
                    self._kept_cr = repaired[-1] == blocks[-1] and piece.endswith(b"\r")
                self._last = changed or self._last
                yield changed

    def _separate(self, whole_events: bytes) -> bytes:
        return separate_objects(whole_events) if self._data_lines else whole_events

    def finish(self) -> bytes:
        """Return the bytes to send at the end of a complete stream."""
        if self.ended:
            return b""
        end = self._take_withheld_usage()
        has_end = self._marked or self._finished or self._failed
        if self.accepts_missing_end and not has_end:
            end += DONE
        is_open = not ends_block(self._last) and bool(self._last.strip())
        return b"\n\n" + end if is_open and (end or self._end) else end

    def _take_withheld_usage(self) -> bytes:
        chunk, self._state.withheld_usage = self._state.withheld_usage, None
        return b"" if chunk is None else rewrite(b"", [to_json(chunk)])

    def _repair(self, block: bytes) -> bytes:
        if self.ended:
            return b""
        try:
            if not _is_too_long(block):
                return self._repair_short(block)
        except TooManyItems:
            pass
        self._answered = True
        return block

    def _repair_short(self, block: bytes) -> bytes:
        if self._utf8 and not is_utf8(block):
            valid = replace_invalid(self._shape, block, read_payload)
            if valid is None:
                return self._abort("text that is not UTF-8")
            block = valid
        if self._event_lines and EVENT_LINES.search(block):  # Comments are moved to a separate block.
            return b"".join([self._change_event(part) for part in split_events(drop_event_lines(block))])
        return self._change_event(block)

    def _abort(self, what: str) -> bytes:
        self.ended = f"the upstream sent {what}"
        return error_event(Aborted(_CUT + what).envelope())

    def _change_event(self, block: bytes) -> bytes:
        payload = read_payload(block) if self._parses else None
        if not payload or not payload.strip():
            return rewrite(block, []) if payload is not None and self._drops_pings else block
        if self._is_chunked and payload.strip().lower() in _END_WORDS:
            return self._change_end(block, payload)
        if self._is_chunked and b"\n" not in payload and self._is_plain(payload):
            self._answered = True
            return block
        event = open_object(payload)
        if event is None:
            return self._change_other(block, payload)
        chunks = self._change(event)
        if chunks is None and self._data_lines and b"\n" in payload:
            chunks = [event]
        if chunks is None:
            return block
        written = [to_json(chunk) for chunk in chunks]
        if self._data_lines and b"\n" in payload:
            written = [msgspec.json.format(each, indent=-1) for each in written]
        return rewrite(block, written)

    @staticmethod
    def _is_plain(payload: bytes) -> bool:
        try:
            return bool(_PLAIN.decode(payload).choices)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False

    def _change_end(self, block: bytes, payload: bytes) -> bytes:
        if not self._answered and self._true_errors:
            return self._abort(_NO_ANSWER)
        self._marked = True
        end = rewrite(block, [END_MARKER]) if self._end and payload != END_MARKER else block
        return self._take_withheld_usage() + end

    def _change_other(self, block: bytes, payload: bytes) -> bytes:
        """Change an event that holds no object."""
        if self._data_lines and b"\n" in payload and not _is_json(payload):
            lines = [line for line in payload.split(b"\n") if line.strip()]
            if all(open_object(line) is not None or line.strip() == END_MARKER for line in lines):
                blocks = [rewrite(b"" if place else block, [line]) for place, line in enumerate(lines)]
                return b"".join([self._change_event(each) for each in blocks])
        if not self._is_chunked or not self._true_errors:
            return block
        if _is_json(payload):
            if payload.lstrip().startswith(b"{"):
                return self._change_lenient(block, payload)
            return rewrite(block, []) if self._drops_pings else block
        if self._finished or self._marked:
            return rewrite(block, [])
        return self._abort("an event that is not JSON")

    def _change_lenient(self, block: bytes, payload: bytes) -> bytes:
        """Change an object that only Python reads, because it holds NaN or half of an escaped character."""
        strict = write_strictly(payload) if is_lenient(payload) else payload
        if open_object(strict) is not None:
            return self._change_event(rewrite(block, [strict]))
        self._answered = True
        return block

    def _change(self, chunk: Members) -> Sequence[Members] | None:
        """Return the chunks that replace an event; None if nothing changes."""
        errors = self._as_errors(chunk)
        changed = errors is not None
        chunks: list[Members] = [chunk] if errors is None else [*errors]
        if self._unwrap and (inner := unwrap(self._shape, chunks[0])) is not None:
            chunks[0], changed = inner, True
        for step in self._steps:
            done: list[Members] = []
            for each in chunks:
                new = step.change(each, self._state)
                changed = changed or new is not None
                if new is None:
                    new = each
                done += new if isinstance(new, list) else [new]
            chunks = done
        for each in chunks:
            self._observe(each)
        return chunks if changed else None

    def _observe(self, chunk: Members) -> None:
        choices = open_list(chunk.get("choices"))
        self._failed = self._failed or holds_error(chunk)
        self._answered = self._answered or self._failed or bool(choices)
        self._finished = self._finished or any(
            is_text((open_object(choice) or {}).get("finish_reason")) for choice in choices or ()
        )

    def _as_errors(self, chunk: Members) -> list[Members] | None:
        """Return an error event, after the text of the same event; None if the event needs no change."""
        if self._vendor_errors and (rejection := read_minimax_rejection(chunk)) is not None:
            rest = {name: value for name, value in chunk.items() if name != "base_resp"}
            return self._as_events(rejection, rest if open_list(rest.get("choices")) else None)
        error = find_error(self._repairs, chunk)
        if error is None:
            return None
        own = open_object(chunk.get("error"))
        if own is None or not is_text(own.get("message")) or not is_null(chunk.get("choices")):
            return self._as_events(error, read_text_beside(chunk))
        if not self._answered or not _is_retried(str(read_value(own["message"]))):
            return None
        return [{**chunk, "error": write({**own, "message": _without_retry(error.message)})}]

    def _as_events(self, error: EmbeddedError, beside: Members | None) -> list[Members]:
        """Write an error as an event, after the text that is in the same event."""
        if self._answered or beside is not None:
            error = replace(error, message=_without_retry(error.message))
        event = {name: write(value) for name, value in error.envelope().items()}
        return [event] if beside is None else [beside, event]


def _is_retried(message: str) -> bool:
    """Whether RAGFlow retries a request because of its error. After text, it would show the text twice."""
    return bool(_RATE_WORDS.search(message) or _SERVER_WORDS.search(message))


def _without_retry(message: str) -> str:
    """Return the message of an error after text in words that do not make RAGFlow retry the request."""
    return f"{_BROKEN_OFF}: {_OVERLOADED if _RATE_WORDS.search(message) else message}"


def _is_too_long(block: bytes) -> bool:
    """Whether repairing an event would take too long."""
    if len(block) <= EVENT_OBJECTS_MAX:
        return False
    return len(block) > EVENT_BYTES_MAX or holds_more(block, EVENT_OBJECTS_MAX, EVENT_MEMBERS_MAX)


def _is_json(payload: bytes) -> bool:
    """Whether Python's parser, which accepts more than the standard, reads it as JSON."""
    if is_utf8(payload) and is_json(payload.removeprefix(BOM)):
        return True
    return is_lenient(payload) and read_leniently(payload) is not None


REPAIRS: Final = (ACCEPT_MISSING_END, DROP_EVENT_LINES, END_STREAM, LF_NEWLINES, DATA_LINES)
