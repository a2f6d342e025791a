"""The record of one exchange, written as one log line at its end.

Every part of the service writes to it, but no part bases a decision on it while the exchange runs. At the end
it becomes the log line and the token count.
"""

import time
from typing import Final

import msgspec

from proxy.errors import CallerError, ProxyError
from proxy.telemetry.logs import get_logger
from proxy.telemetry.spans import ExchangeSpan, FieldValue

_log: Final = get_logger("bodies")


class BodyLog:
    """Logs the beginning of the request body and of the response body, for debugging. Off by default.

    Args:
        limit: The number of bytes of each body to log.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._response = bytearray()
        self._response_bytes = 0

    def log_request(self, head: bytes, *, whole: bool) -> None:
        """Log the request body immediately, so that the line exists even if the exchange fails.

        Args:
            head: The body, or its beginning.
            whole: Whether this is the whole body.
        """
        _log_body("request_body", head[: self._limit], truncated=not whole or len(head) > self._limit)

    def add_response(self, chunk: bytes) -> None:
        """Add bytes of the response, up to the limit."""
        self._response_bytes += len(chunk)
        self._response += chunk[: self._limit - len(self._response)]

    def discard_response(self) -> None:
        """Discard the response so far, because none of it was sent."""
        self._response.clear()
        self._response_bytes = 0

    def log_response(self) -> None:
        """Log the response body."""
        _log_body("response_body", bytes(self._response), truncated=self._response_bytes > self._limit)


class ExchangeRecord(msgspec.Struct):
    """The properties and the outcome of one exchange. Times are monotonic seconds, sizes are bytes."""

    request_id: str
    method: str
    path: str
    started: float = msgspec.field(default_factory=time.monotonic)
    caller: str | None = None
    endpoint: str | None = None
    model: str | None = None
    upstream: str | None = None
    status: int | None = None
    outcome: str = ""
    """`ok`, why the connection ended early, such as `client_gone`, or the code of the error that ended it."""
    reason: str | None = None
    """The reason for the log, which the caller does not receive."""
    headers_at: float | None = None
    first_byte_at: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_of_heartbeats: int = 0
    events: int | None = None
    """The number of event-stream blocks sent to the caller; None if the response is not an event stream."""
    events_unreported: int = 0
    """How many of the events the reported usage does not include, although there is one."""
    generation: int | None = None
    """The generation of the last token used."""
    replays: int = 0
    attempts: int = 0
    """The number of attempts, without replays with another token."""
    upstream_request_id: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """The tokens that the upstream reported, or an estimate."""
    usage_estimated: bool = False
    """Whether the tokens are an estimate, because the upstream's report is missing or incomplete."""
    tokens_counted: int = 0
    """How many of them have been added to the budget of the caller."""
    succeeded: bool = False
    """Whether the upstream's status was a success."""
    unanswered: bool = False
    """Whether an upstream received the request, and its response did not begin or was not a usable one."""
    quiet: bool = False
    """Whether to log at debug level, because probes of orchestrators would drown the other lines."""
    span: ExchangeSpan | None = None
    """The span of the exchange, if `[traces]` is set."""
    bodies: BodyLog | None = None
    """Logs the bodies, if the settings enable it."""

    def now(self) -> float:
        """Return the current time on the clock of this record."""
        return time.monotonic()

    def begin_attempt(self, upstream: str) -> None:
        """Start an attempt at an upstream, and forget the result of the previous one."""
        self.upstream = upstream
        self.attempts += 1
        if self.attempts > 1:
            self.outcome, self.reason = "", None
            self.headers_at = self.first_byte_at = self.upstream_request_id = None
            self.prompt_tokens = self.completion_tokens = self.events = self.generation = None
            self.succeeded = False
            self.replays = self.events_unreported = 0
            self.discard_attempt()

    def note_unanswered(self) -> None:
        """Note that an upstream received the request, and may work on it although no response arrives.

        Another attempt does not undo that.
        """
        self.unanswered = True

    def discard_attempt(self) -> None:
        """Subtract bytes that were counted but never sent."""
        self.bytes_down = 0
        if self.bodies is not None:
            self.bodies.discard_response()

    def count_heartbeat(self, comment: bytes) -> None:
        """Count a heartbeat, which was sent to the caller in any case."""
        self.bytes_of_heartbeats += len(comment)

    def count_bytes_sent(self, chunk: bytes) -> None:
        """Count bytes of the response that are sent to the caller."""
        self.bytes_down += len(chunk)
        if self.bodies is not None:
            self.bodies.add_response(chunk)

    def add_usage(self, prompt: int, completion: int) -> None:
        """Add tokens, if the upstream reports them in several parts."""
        self.prompt_tokens = (self.prompt_tokens or 0) + prompt
        self.completion_tokens = (self.completion_tokens or 0) + completion

    def fail(self, error: ProxyError) -> None:
        """Set the error that ended the exchange. The first one counts.

        A caller's error without a reason of its own has the message that the caller receives, which says what
        is wrong with the request.
        """
        says_more = isinstance(error, CallerError) and str(error) != error.message
        self.end(error.code, error.reason or (str(error) if says_more else None))

    def end(self, outcome: str, reason: str | None = None) -> None:
        """Set how the exchange ended. The first outcome counts."""
        if not self.outcome:
            self.outcome, self.reason = outcome, reason

    def fields(self) -> dict[str, FieldValue]:
        """Return the known fields of the log line, with durations in milliseconds."""
        started = self.started
        line: dict[str, FieldValue] = {
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "outcome": self.outcome,
            "duration_ms": round((time.monotonic() - started) * 1000, 2),
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down + self.bytes_of_heartbeats,
        }
        headers_at, first_byte_at = self.headers_at, self.first_byte_at
        known: dict[str, FieldValue] = {
            "caller": self.caller,
            "endpoint": self.endpoint,
            "model": self.model,
            "upstream": self.upstream,
            "time_to_headers_ms": None if headers_at is None else round((headers_at - started) * 1000, 2),
            "time_to_first_byte_ms": (
                None if first_byte_at is None else round((first_byte_at - started) * 1000, 2)
            ),
            "events": self.events,
            "generation": self.generation,
            "replays": self.replays or None,
            "attempts": self.attempts if self.attempts > 1 else None,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "usage_estimated": self.usage_estimated or None,
            "upstream_request_id": self.upstream_request_id,
            "trace_id": None if self.span is None else self.span.trace_id,
            "reason": self.reason,
        }
        line |= {name: value for name, value in known.items() if value is not None}
        return line


def _log_body(event: str, body: bytes, *, truncated: bool) -> None:
    _log.info(event, body=body.decode(errors="replace"), truncated=truncated)
