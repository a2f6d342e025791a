"""The record of one exchange, written as one log line at its end.

Every part of the service writes to it, and none decides by it while the exchange runs. At the end it is the
log line, and the basis of the token count.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from proxy.errors import ProxyError
from proxy.telemetry.body_log import BodyLog


@dataclass(slots=True)
class ExchangeRecord:
    """What one exchange was and how it ended. Times are monotonic seconds; sizes are bytes."""

    request_id: str
    method: str
    path: str
    started: float = field(default_factory=time.monotonic)
    caller: str | None = None
    endpoint: str | None = None
    model: str | None = None
    upstream: str | None = None
    status: int | None = None
    outcome: str = ""
    """`ok`, why the connection ended early, such as `client_gone`, or the code of the error that ended it."""
    reason: str | None = None
    """Words for the log alone."""
    headers_at: float | None = None
    first_byte_at: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_of_heartbeats: int = 0
    events: int | None = None
    """Of an event stream: how many blocks came down."""
    generation: int | None = None
    """Of the credential that was used last."""
    replays: int = 0
    attempts: int = 0
    """How often an upstream was asked, replays with another token aside."""
    upstream_request_id: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """As the upstream reported them, or estimated."""
    usage_estimated: bool = False
    """Whether the tokens are an estimate, because the upstream did not report them or the caller left."""
    answered: bool = False
    """Whether the upstream answered with a status of success."""
    quiet: bool = False
    """Write the line at debug level: probes of orchestrators would drown the rest."""
    bodies: BodyLog | None = None
    """Where bodies are logged, if they are."""

    def now(self) -> float:
        """Return the time on the clock of all times in this record."""
        return time.monotonic()

    def begin_attempt(self, upstream: str) -> None:
        """Note that an upstream is asked, and forget the result of an earlier attempt."""
        self.upstream = upstream
        self.attempts += 1
        if self.attempts > 1:
            self.outcome, self.reason = "", None
            self.headers_at = self.first_byte_at = self.upstream_request_id = None
            self.prompt_tokens = self.completion_tokens = self.events = self.generation = None
            self.answered = False
            self.replays = 0
            self.discard_attempt()

    def discard_attempt(self) -> None:
        """Subtract bytes that were counted but never sent."""
        self.bytes_down = 0
        if self.bodies is not None:
            self.bodies.discard_answer()

    def count_heartbeat(self, comment: bytes) -> None:
        """Count a heartbeat, which is sent to the caller whatever follows."""
        self.bytes_of_heartbeats += len(comment)

    def count_bytes_sent(self, chunk: bytes) -> None:
        """Count bytes of the answer as they are sent to the caller."""
        self.bytes_down += len(chunk)
        if self.bodies is not None:
            self.bodies.answered(chunk)

    def add_usage(self, prompt: int, completion: int) -> None:
        """Count tokens that the upstream reports in several parts."""
        self.prompt_tokens = (self.prompt_tokens or 0) + prompt
        self.completion_tokens = (self.completion_tokens or 0) + completion

    def fail(self, error: ProxyError) -> None:
        """Note the error that ended the exchange; the first one counts."""
        self.end(error.code, error.reason)

    def end(self, outcome: str, reason: str | None = None) -> None:
        """Note how the exchange ended; the first outcome counts."""
        if not self.outcome:
            self.outcome, self.reason = outcome, reason

    def fields(self) -> dict[str, Any]:
        """The line's fields: what is known, durations in milliseconds."""
        now = time.monotonic()
        line: dict[str, Any] = {
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "outcome": self.outcome,
            "duration_ms": _milliseconds(now - self.started),
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down + self.bytes_of_heartbeats,
        }
        known = {
            "caller": self.caller,
            "endpoint": self.endpoint,
            "model": self.model,
            "upstream": self.upstream,
            "time_to_headers_ms": self._since_start(self.headers_at),
            "time_to_first_byte_ms": self._since_start(self.first_byte_at),
            "events": self.events,
            "generation": self.generation,
            "replays": self.replays or None,
            "attempts": self.attempts if self.attempts > 1 else None,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "usage_estimated": self.usage_estimated or None,
            "upstream_request_id": self.upstream_request_id,
            "reason": self.reason,
        }
        line.update((name, value) for name, value in known.items() if value is not None)
        return line

    def _since_start(self, moment: float | None) -> float | None:
        return None if moment is None else _milliseconds(moment - self.started)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)
