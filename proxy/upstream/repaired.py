"""Apply repairs to one response: how much of it they need, and what the caller gets."""

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeVar

from msgspec.structs import replace

from proxy.errors import InvalidResponse
from proxy.upstream.repair_threads import RepairThreads
from proxy.wire.endpoints import Shape
from proxy.wire.event_stream import EVENT_STREAM, EventFramer, begins_like_events, holds_event
from proxy.wire.headers import Headers, content_coding, find_header, media_type
from proxy.wire.repairs import Call, EmbeddedError, Repairs, StreamRepairer, repair_response
from proxy.wire.repairs.conversions import (
    ANSWER_TO_STREAM,
    LABEL_ANSWER,
    STREAM_TO_ANSWER,
    AnswerJoiner,
    answer_to_stream,
    is_chat,
    lines_to_stream,
)
from proxy.wire.repairs.framing import cut_events
from proxy.wire.repairs.shallow_json import SHORT_BYTES, TooManyItems, is_json
from proxy.wire.repairs.vendor_errors import TRUE_ERRORS
from proxy.wire.statuses import OK
from proxy.wire.usage import Usage, read_stream_usage, read_usage

WHOLE_BYTES_MAX: Final = 64 << 20
"""The longest response that is held in memory to be repaired as a whole."""
INLINE_BYTES_MAX: Final = 128 << 10
"""A longer request or response is repaired in a thread, because one of many small members takes 20 ms."""
_Changed = TypeVar("_Changed")
_EVENTS_LABEL: Final = EVENT_STREAM + b"; charset=utf-8"
_JSON_LABEL: Final = b"application/json"
_OBJECT_OR_LIST: Final = re.compile(rb"\s*+[{\[]")


class RepairedStart(NamedTuple):
    """The body that the caller gets, or its first bytes.

    Args:
        body: A whole body, or the first bytes of one.
        is_events: Whether it is an event stream.
        is_whole: Whether nothing else follows, although the upstream's headers describe another body.
        content_type: Replaces that of the upstream.
        usage: What the upstream reported in a body that is whole. Repairs may have dropped it from the body.
    """

    body: bytes
    is_events: bool
    is_whole: bool = False
    content_type: bytes | None = None
    usage: Usage | None = None


class ResponseRepairs:
    """The repairs of the response of one exchange; falsy if none applies to its endpoint.

    Args:
        repairs: The repairs of the route.
        call: What the caller asked for.
        threads: Where a long response is repaired.
        caller: The name of the caller, who shares the threads with the others.
    """

    def __init__(
        self, repairs: Repairs, call: Call, threads: RepairThreads | None = None, caller: str = ""
    ) -> None:
        self._repairs = repairs
        self._call = call
        self._threads = threads or RepairThreads()
        self._caller = caller

    def __bool__(self) -> bool:
        return self._call.shape is not None and self._repairs.change_responses

    def beginning(self, method: str, status: int, headers: Headers) -> "ResponsePrefix | None":
        """Return a buffer for the start of the response; None if no repair applies to it."""
        is_success = status == OK or (method == "POST" and 200 < status < 300)
        if not self or content_coding(headers) or not is_success or method in {"HEAD", "OPTIONS"}:
            return None
        content_type = find_header(headers, b"content-type")
        return ResponsePrefix(self._repairs, self._call, content_type, self._threads, self._caller)

    def stream(self) -> StreamRepairer:
        """Return what repairs the events of a stream, one after the other."""
        return StreamRepairer(self._repairs, self._call)


class ResponsePrefix:
    """The first bytes of a response, until they show what it is."""

    def __init__(
        self,
        repairs: Repairs,
        call: Call,
        content_type: bytes | None,
        threads: RepairThreads | None = None,
        caller: str = "",
    ) -> None:
        self._repairs = repairs
        self._call = call
        self._content_type = content_type
        self._threads = threads or RepairThreads()
        self._caller = caller
        self._labelled_events = media_type(content_type) == EVENT_STREAM
        self._held = bytearray()
        self._searched = 0
        self._is_events: bool | None = None

    def feed(self, chunk: bytes) -> None:
        """Take what arrived next.

        Raises:
            InvalidResponse: The response is too long to be converted into what the caller asked for.
        """
        self._held += chunk
        if self._is_events is None:
            self._is_events = self._detect_events()
        if self._is_too_long and (self._joins if self._is_events else self._streams_whole):
            raise InvalidResponse("a response that is too long to be repaired")

    def has_enough(self, max_event_bytes: int) -> bool:
        """Whether the bytes suffice: one event of a stream, all of a response that is repaired as a whole."""
        if self._is_events is None:
            return False
        if self._is_events and not self._joins:
            start, self._searched = max(0, self._searched - 3), len(self._held)
            return holds_event(self._held[start:]) or len(self._held) > max_event_bytes
        return not self._is_events and (self._is_too_long or not self._holds_whole)

    async def mask(self, mask: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Mask secrets in the bytes that have arrived."""
        self._held = bytearray(await mask(bytes(self._held)))

    async def start(self, max_event_bytes: int) -> RepairedStart | EmbeddedError:
        """Return what the caller gets, or the error that the response turns out to be.

        Raises:
            InvalidResponse: The response does not answer the call.
            BadResponse: It was cut.
        """
        body = bytes(self._held)
        if not self._is_events:
            return await self._start_whole(body)
        whole_events = EventFramer(max_event_bytes).feed(body)
        # A whole response has its usage in any case.
        call = replace(self._call, usage_requested=True) if self._joins else self._call
        stream = StreamRepairer(self._repairs, call)
        error = stream.first_error(whole_events)
        if error is not None:
            return error
        if not self._joins:
            return RepairedStart(body, is_events=True, content_type=self._label_events())
        events = await _repair_all(stream, body)
        joined = await self._run(self._join, events, inline_max=SHORT_BYTES)
        return joined if isinstance(joined, EmbeddedError) else await self._repair_whole(body, joined)

    def _detect_events(self) -> bool | None:
        """Whether this is an event stream.

        The first bytes decide if the response holds chunks in any case, or if the caller asked for a stream.
        Otherwise the label does, because a transcription or a list may begin like an event.
        """
        if self._call.shape is Shape.SPEECH:
            return self._call.streams is True and self._labelled_events
        if not is_chat(self._call) and (self._labelled_events or self._call.streams is not True):
            return self._labelled_events
        if self._labelled_events and not (TRUE_ERRORS in self._repairs or ANSWER_TO_STREAM in self._repairs):
            return True
        return begins_like_events(self._held)

    @property
    def _is_too_long(self) -> bool:
        return len(self._held) > WHOLE_BYTES_MAX

    @property
    def _joins(self) -> bool:
        return is_chat(self._call) and self._call.streams is False and STREAM_TO_ANSWER in self._repairs

    @property
    def _streams_whole(self) -> bool:
        return is_chat(self._call) and self._call.streams is True and ANSWER_TO_STREAM in self._repairs

    @property
    def _holds_whole(self) -> bool:
        """Whether a response must be complete to be repaired. Speech does not, unless it looks like text."""
        if self._call.shape != Shape.SPEECH:
            return self._call.shape is not None
        kind = media_type(self._content_type)
        textual = kind.startswith(b"text/") or kind.endswith(b"json")
        return textual or bytes(self._held[:64]).lstrip()[:1] in {b"", b"{", b"[", b"<"}

    def _join(self, events: bytes) -> bytes | EmbeddedError:
        joiner = AnswerJoiner(self._call)
        try:
            for part in cut_events(events):
                if (error := joiner.add(part)) is not None:
                    return error
            return joiner.close()
        except TooManyItems as too_many:
            raise InvalidResponse("events that hold too much to be joined") from too_many

    async def _start_whole(self, body: bytes) -> RepairedStart | EmbeddedError:
        if self._is_too_long or not self._holds_whole:
            return RepairedStart(body, is_events=False)
        events = await self._run(lines_to_stream, body) if self._streams_whole else None
        if events is not None:
            stream = StreamRepairer(self._repairs, self._call)
            error = stream.first_error(events)
            repaired = await _repair_all(stream, events)
            usage = await self._run(read_stream_usage, events) or await self._run(read_stream_usage, repaired)
            return error or RepairedStart(
                repaired, is_events=True, is_whole=True, content_type=_EVENTS_LABEL, usage=usage
            )
        return await self._repair_whole(body, body)

    async def _repair_whole(self, received: bytes, body: bytes) -> RepairedStart | EmbeddedError:
        return await self._run(functools.partial(self._write_whole, received), body)

    def _write_whole(self, received: bytes, body: bytes) -> RepairedStart | EmbeddedError:
        """Repair a whole body, which has been joined if the upstream's bytes were a stream."""
        repaired = repair_response(self._repairs, self._call, body)
        if isinstance(repaired, EmbeddedError):
            return repaired
        label = self._label_whole(repaired)
        events = answer_to_stream(repaired, self._call) if self._streams_whole else None
        if events is None and repaired == received:
            return RepairedStart(repaired, is_events=self._labelled_events, content_type=label)
        # Before the conversion, which drops what was not asked for; of an envelope, after it was unwrapped.
        usage = (read_stream_usage if self._is_events else read_usage)(received) or read_usage(repaired)
        if events is not None:
            return RepairedStart(
                events, is_events=True, is_whole=True, content_type=_EVENTS_LABEL, usage=usage
            )
        return RepairedStart(repaired, is_events=False, is_whole=True, content_type=label, usage=usage)

    async def _run(
        self, change: Callable[[bytes], _Changed], body: bytes, *, inline_max: int = INLINE_BYTES_MAX
    ) -> _Changed:
        """Call a pure function, in a thread if the body is long, so that the event loop can run meanwhile."""
        if len(body) <= inline_max:
            return change(body)
        return await self._threads.run(self._caller, functools.partial(change, body))

    def _label_events(self) -> bytes | None:
        """Return the label of a stream, if the upstream's is wrong."""
        is_wrong = LABEL_ANSWER in self._repairs and not self._labelled_events
        return _EVENTS_LABEL if is_wrong else None

    def _label_whole(self, body: bytes) -> bytes | None:
        """Return the label of JSON, if the upstream's is wrong. A transcription, for example, may be text."""
        is_wrong = LABEL_ANSWER in self._repairs and not media_type(self._content_type).endswith(b"json")
        return _JSON_LABEL if is_wrong and _OBJECT_OR_LIST.match(body) and is_json(body) else None


async def repair_events(stream: StreamRepairer, whole_events: bytes) -> bytes:
    """Repair whole events, and let other tasks run between the parts of a flood of events."""
    parts: list[bytes] = []
    for part in stream.feed_in_parts(whole_events):
        if parts:
            await asyncio.sleep(0)
        parts.append(part)
    return b"".join(parts)


async def _repair_all(stream: StreamRepairer, events: bytes) -> bytes:
    return await repair_events(stream, events) + stream.finish()
