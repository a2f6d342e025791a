"""What repairs do to one exchange: how much of an answer they must see first, and what becomes of it."""

from http import HTTPStatus
from typing import Final

from proxy.errors import InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.event_stream import EVENT_STREAM, EventFramer, begins_like_events, holds_event
from proxy.wire.headers import Headers, find_header, media_type
from proxy.wire.repairs import ErrorInside, Repairs, StreamRepairer, repair_answer

WHOLE_BYTES_MAX: Final = 256 << 20
"""A whole answer that is longer is refused: repairs hold it in memory."""


class AnswerRepairs:
    """The repairs of one exchange's answer; falsy where there are none.

    Args:
        repairs: What is on.
        shape: Of the request and its answer; None where no repair applies.
        method: Of the request.
        stream_asked: Whether the caller asked for a stream.
        usage_asked: Whether the caller asked for usage in a stream.
        top_n: How many results the caller's rerank asked for.
    """

    def __init__(
        self,
        repairs: Repairs,
        shape: Shape | None,
        *,
        method: str = "POST",
        stream_asked: bool = False,
        usage_asked: bool = False,
        top_n: object = None,
    ) -> None:
        self._repairs = repairs
        self._method = method
        self._stream_asked = stream_asked
        self._shape = shape
        self._usage_asked = usage_asked
        self._top_n = top_n

    def __bool__(self) -> bool:
        return bool(self._repairs.answer or self._repairs.stream)

    def concern(self, method: str, status: int, headers: Headers) -> bool:
        """Whether an answer is looked into: a 200 with a body that is not compressed."""
        compressed = (find_header(headers, b"content-encoding") or b"identity").lower() != b"identity"
        return bool(self) and status == HTTPStatus.OK and not compressed and method not in {"HEAD", "OPTIONS"}

    def have_enough(self, headers: Headers, body: bytes) -> bool:
        """Whether so much of a body can be answered with: an event of a stream, all of anything else.

        Raises:
            InvalidResponse: it is too long to be held.
        """
        if len(body) > WHOLE_BYTES_MAX:
            raise InvalidResponse("an answer that is too long to be repaired")
        is_stream = self.find_stream(headers, body)
        if is_stream is not False:
            return is_stream is True and holds_event(body)
        return not self._repairs.answer or self._shape is None

    def begin(self, headers: Headers, body: bytes, max_event_bytes: int) -> bytes | ErrorInside:
        """What is answered with: the beginning of a stream as it came, a whole answer repaired, or an error.

        Raises:
            InvalidResponse: it is no answer at all.
        """
        if self.find_stream(headers, body) is not True:
            return repair_answer(self._repairs, self._shape, self._method, body, self._top_n)
        whole = EventFramer(max_event_bytes).feed(body)
        return self.stream().first(whole) or body

    def find_stream(self, headers: Headers, body: bytes) -> bool | None:
        """Whether the body is an event stream; None if more of it is needed to decide.

        Some upstreams label a stream as JSON or as plain text, so if the caller asked for a stream, the first
        bytes decide.
        """
        if media_type(find_header(headers, b"content-type")) == EVENT_STREAM:
            return True
        return begins_like_events(body) if self._stream_asked else False

    def stream(self) -> StreamRepairer:
        """What repairs the events of a stream, one after the other."""
        return StreamRepairer(self._repairs, self._shape, usage_asked=self._usage_asked)
