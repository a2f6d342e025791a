"""Totals over all exchanges since start-up, counted when each ends. The metrics are computed from them."""

from collections import Counter, defaultdict
from collections.abc import Collection
from typing import Final, Literal, NamedTuple

from proxy.telemetry.exchange_record import ExchangeRecord
from proxy.telemetry.histogram import Histogram

BUCKET_SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""Upper bounds: a rejection takes milliseconds, a stream of a thinking model minutes."""
UNKNOWN: Final = "unknown"
"""The caller, endpoint or upstream of exchanges that ended before it was determined."""


class RequestKey(NamedTuple):
    """The labels by which exchanges are counted. Settings and constants bound the values of each."""

    caller: str
    endpoint: str
    status: str
    """The class of the status, such as `2xx`; `none` if no response began."""
    outcome: str


class OffloadKey(NamedTuple):
    """The labels by which answers to nginx are counted."""

    caller: str
    result: Literal["granted", "refused", "failed"]
    """The result. `refused`: the proxy has to relay the request; `failed`: there is no token."""


def _durations() -> Histogram:
    return Histogram(BUCKET_SECONDS)


class ExchangeTotals:
    """Requests, durations, events and bytes of the exchanges that have ended."""

    def __init__(self) -> None:
        self.requests: Counter[RequestKey] = Counter()
        self.durations: defaultdict[str, Histogram] = defaultdict(_durations)
        """The seconds of whole exchanges, by endpoint."""
        self.first_events: defaultdict[str, Histogram] = defaultdict(_durations)
        """The times from the arrival of a request to the first byte of its event stream, by upstream."""
        self.events: Counter[str] = Counter()
        """Events sent to callers, by upstream."""
        self.bytes_received: Counter[str] = Counter()
        self.bytes_sent: Counter[str] = Counter()
        """Bytes of responses, by caller."""
        self.offload_answers: Counter[OffloadKey] = Counter()
        """Answers to nginx, which asks whether it may relay requests itself."""

    def count(self, record: ExchangeRecord) -> None:
        """Count an exchange that has ended. Probes are not counted."""
        if record.quiet:
            return
        caller, endpoint = record.caller or UNKNOWN, record.endpoint or UNKNOWN
        status = "none" if record.status is None else f"{record.status // 100}xx"
        self.requests[RequestKey(caller, endpoint, status, record.outcome)] += 1
        self.durations[endpoint].add(record.now() - record.started)
        self.bytes_received[caller] += record.bytes_up
        self.bytes_sent[caller] += record.bytes_down + record.bytes_of_heartbeats
        if record.events is not None:
            upstream = record.upstream or UNKNOWN
            self.events[upstream] += record.events
            if record.first_byte_at is not None:
                self.first_events[upstream].add(record.first_byte_at - record.started)

    def offloaded(self) -> dict[str, int]:
        """Return how often nginx was given a token, by the caller for whom it asked."""
        return {key.caller: count for key, count in self.offload_answers.items() if key.result == "granted"}

    def forget(self, callers: Collection[str]) -> None:
        """Drop the counts of callers."""
        for key in [key for key in self.requests if key.caller in callers]:
            del self.requests[key]
        for answer in [answer for answer in self.offload_answers if answer.caller in callers]:
            del self.offload_answers[answer]
        for caller in callers:
            self.bytes_received.pop(caller, None)
            self.bytes_sent.pop(caller, None)
