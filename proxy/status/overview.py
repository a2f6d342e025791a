"""The overview of all workers that the status page shows, computed from their reports (pure)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from proxy.status.report import StatusReport
from proxy.telemetry import TokenReading, UpstreamReading
from proxy.telemetry.traffic import (
    MINUTE_SECONDS,
    MINUTES,
    PROBLEMS_MAX,
    RECENT_MINUTES,
    RESULTS,
    STEP_SECONDS,
    STEPS,
    CallerTraffic,
    ExchangeProblem,
    percentile,
)

RATE_STEPS: Final = 5
"""The number of complete steps over which requests per second are averaged."""
CALLERS_SHOWN: Final = 50
PROBLEMS_SHOWN: Final = 2 * PROBLEMS_MAX

Key = TypeVar("Key", int, str)


class CallerRow(msgspec.Struct, frozen=True):
    """The traffic of one caller, added up over the workers."""

    name: str
    streams: int
    recent: int
    """Exchanges that ended in the last five minutes."""
    results: Mapping[str, int]
    """Exchanges of the last hour, by result."""
    offloaded: bool
    """Whether nginx relays requests of this caller itself, which are not counted."""

    @property
    def last_hour(self) -> int:
        """Exchanges of the last hour."""
        return sum(self.results.values())


class FirstEvents(msgspec.Struct, frozen=True):
    """The time from a request to the first event of its stream, for half and for 99% of the streams."""

    p50: float | None
    p99: float | None

    @classmethod
    def of(cls, buckets: Mapping[int, int]) -> "FirstEvents":
        """Compute both from counts by bucket."""
        return cls(percentile(buckets, 0.5), percentile(buckets, 0.99))


class UpstreamRow(msgspec.Struct, frozen=True):
    """One upstream, with the attempts of all workers."""

    name: str
    circuits: Mapping[str, int]
    """The number of workers whose circuit is in a state; empty without circuit breakers."""
    attempts: Mapping[str, int]


class Overview(msgspec.Struct, frozen=True):
    """Everything that the page shows."""

    workers: int
    silent: int
    """Workers that did not report in time."""
    ready: int
    draining: int
    running: int
    streams: int
    callers: Sequence[CallerRow]
    callers_left_out: int
    rates: Sequence[float]
    """Requests per second in each step of the last five minutes, the oldest first."""
    rate: float
    """Requests per second in the last ten seconds."""
    first_events: Sequence[FirstEvents]
    """The times to the first event in each minute of the last hour, the oldest first."""
    recent_first_events: FirstEvents
    results: Sequence[Mapping[str, int]]
    """The results in each minute of the last hour, the oldest first."""
    outcomes: Mapping[str, int]
    """The outcomes of the last hour, the most frequent first."""
    credentials: Sequence[TokenReading]
    """The reading of each credential from the worker whose token ends first."""
    upstreams: Sequence[UpstreamRow]
    problems: Sequence[ExchangeProblem]
    """The newest first."""

    @property
    def totals(self) -> Mapping[str, int]:
        """The exchanges of the last hour, by result."""
        total = _sum(self.results)
        return {result: total[result] for result in RESULTS}


def merge(reports: Sequence[StatusReport], workers: int) -> Overview:
    """Merge the reports of workers.

    Args:
        reports: The reports, at least one.
        workers: How many workers there are.
    """
    now = max(report.traffic.at for report in reports)
    last_step, last_minute = int(now / STEP_SECONDS), int(now / MINUTE_SECONDS)
    steps = _sum(report.traffic.steps for report in reports)
    numbers = range(last_step - STEPS + 1, last_step)  # the last step is not complete yet
    rates = [steps[number] / STEP_SECONDS for number in numbers]
    minutes = [
        [report.traffic.minutes[number] for report in reports if number in report.traffic.minutes]
        for number in range(last_minute - MINUTES + 1, last_minute + 1)
    ]
    first_events = [_sum(reading.first_events for reading in minute) for minute in minutes]
    callers = _callers(reports)
    problems = [problem for report in reports for problem in report.traffic.problems]
    return Overview(
        workers=workers,
        silent=workers - len(reports),
        ready=sum(report.ready for report in reports),
        draining=sum(report.draining for report in reports),
        running=sum(report.running for report in reports),
        streams=sum(sum(report.streams.values()) for report in reports),
        callers=callers[:CALLERS_SHOWN],
        callers_left_out=max(len(callers) - CALLERS_SHOWN, 0),
        rates=rates,
        rate=sum(rates[-RATE_STEPS:]) / RATE_STEPS,
        first_events=[FirstEvents.of(buckets) for buckets in first_events],
        recent_first_events=FirstEvents.of(_sum(first_events[-RECENT_MINUTES:])),
        results=[_sum(reading.results for reading in minute) for minute in minutes],
        outcomes=dict(_sum(report.traffic.outcomes for report in reports).most_common()),
        credentials=_credentials(reports),
        upstreams=_upstreams(reports),
        problems=sorted(problems, key=lambda problem: problem.at, reverse=True)[:PROBLEMS_SHOWN],
    )


def _callers(reports: Iterable[StatusReport]) -> list[CallerRow]:
    """Return a row for each caller that is active or served by nginx, the most active first."""
    streams = _sum(report.streams for report in reports)
    offloaded = _sum(report.offloaded for report in reports)
    found: dict[str, list[CallerTraffic]] = {name: [] for name in (*streams, *offloaded)}
    for report in reports:
        for name, counts in report.traffic.callers.items():
            found.setdefault(name, []).append(counts)
    rows = [
        CallerRow(
            name=name,
            streams=streams[name],
            recent=sum(counts.recent for counts in by_worker),
            results=_sum(counts.results for counts in by_worker),
            offloaded=name in offloaded,
        )
        for name, by_worker in found.items()
    ]
    return sorted(rows, key=lambda row: (-row.streams, -row.last_hour, row.name))


def _credentials(reports: Iterable[StatusReport]) -> list[TokenReading]:
    readings: dict[str, list[TokenReading]] = {}
    for report in reports:
        for reading in report.credentials:
            readings.setdefault(reading.credential, []).append(reading)
    return [min(found, key=lambda reading: reading.remaining_seconds) for found in readings.values()]


def _upstreams(reports: Iterable[StatusReport]) -> list[UpstreamRow]:
    readings: dict[str, list[UpstreamReading]] = {}
    for report in reports:
        for reading in report.upstreams:
            readings.setdefault(reading.upstream, []).append(reading)
    return [
        UpstreamRow(
            name,
            circuits=Counter(reading.circuit for reading in found if reading.circuit is not None),
            attempts=dict(_sum(reading.attempts for reading in found).most_common()),
        )
        for name, found in readings.items()
    ]


def _sum(counts: Iterable[Mapping[Key, int]]) -> Counter[Key]:
    total = Counter[Key]()
    for count in counts:
        for key, number in count.items():  # faster than `Counter.update`
            total[key] += number
    return total
