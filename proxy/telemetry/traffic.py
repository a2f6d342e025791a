"""The traffic of the last hour in rings of fixed size, for the status page.

Counting an exchange takes constant time, and the size is bounded: 150 counters of requests, 60 minutes
with at most 201 callers, 61 outcomes and 120 buckets of times each, their sums, and the last 25 exchanges
that failed and the last 25 that were rejected.
"""

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Final, Literal, get_args

import msgspec

from proxy.telemetry.exchange_record import ExchangeRecord

STEP_SECONDS: Final = 2
STEPS: Final = 150
"""Requests are counted by steps, for a chart of five minutes."""
MINUTE_SECONDS: Final = 60
MINUTES: Final = 60
RECENT_MINUTES: Final = 5
CALLERS_MAX: Final = 200
"""The number of callers counted in one hour. Names come from the configuration; a reload may add others."""
UNKNOWN_CALLER: Final = ""
"""The name for exchanges that ended before their caller was known, such as those with a wrong key."""
OUTCOMES_MAX: Final = 60
OTHER: Final = "other"
"""The name for callers and outcomes beyond the limits."""
PROBLEMS_MAX: Final = 25
"""The number of exchanges that are kept, of those that failed and of those that were rejected."""
REASON_CHARACTERS_MAX: Final = 200
BUCKETS: Final = 120
BUCKET_GROWTH: Final = 1.12
"""Times are counted in buckets, each 12% wider than the one before; the first one ends at 1 ms."""

ExchangeResult = Literal["ok", "left", "rejected", "failed"]
"""How an exchange ended: answered, ended by its caller, rejected because of its request, or failed."""
RESULTS: Final[tuple[ExchangeResult, ...]] = get_args(ExchangeResult)
_LOG_GROWTH: Final = math.log(BUCKET_GROWTH)
_NEVER: Final = -1
"""The number of a place in a ring that has not been used."""
_LEFT: Final = frozenset({"client_gone", "stopped", "slow_reader", "slow_body", "malformed_body"})


class ExchangeProblem(msgspec.Struct, frozen=True):
    """An exchange that failed or was rejected."""

    at: float
    """Seconds since the epoch."""
    result: ExchangeResult
    request_id: str
    outcome: str
    status: int | None
    caller: str | None
    endpoint: str | None
    upstream: str | None
    reason: str | None


class MinuteReading(msgspec.Struct, frozen=True):
    """The exchanges that ended in one minute."""

    results: Mapping[str, int]
    first_events: Mapping[int, int]
    """Times from the request to the first event of a stream, by bucket."""


class CallerTraffic(msgspec.Struct, frozen=True):
    """The exchanges of one caller."""

    recent: int
    """The number that ended in the last five minutes, including the one in progress."""
    results: Mapping[str, int]
    """The number that ended in the last hour, by result."""


class TrafficReading(msgspec.Struct, frozen=True):
    """The traffic up to one moment, by the numbers of steps and minutes on the clock of the host."""

    at: float
    """The moment, in monotonic seconds."""
    steps: Mapping[int, int]
    minutes: Mapping[int, MinuteReading]
    callers: Mapping[str, CallerTraffic]
    outcomes: Mapping[str, int]
    """The number of exchanges in the last hour, by outcome."""
    problems: Sequence[ExchangeProblem]


class _Minute(msgspec.Struct):
    number: int
    results: Counter[str] = msgspec.field(default_factory=Counter)
    callers: defaultdict[str, Counter[str]] = msgspec.field(default_factory=lambda: defaultdict(Counter))
    outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    first_events: Counter[int] = msgspec.field(default_factory=Counter)


class Traffic:
    """Counts the exchanges of one worker.

    Args:
        clock: Returns monotonic seconds.
        wall: Returns seconds since the epoch.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._steps = [(_NEVER, 0)] * STEPS
        """Ring of numbers of steps and their counts."""
        self._minutes = [_Minute(_NEVER)] * MINUTES
        self._callers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._outcomes: Counter[str] = Counter()
        """The sums of all minutes, kept up to date so that a reading need not add them up."""
        self._problems = {
            result: deque[ExchangeProblem](maxlen=PROBLEMS_MAX) for result in ("rejected", "failed")
        }  # apart, so that rejected requests do not displace failures

    def count(self, record: ExchangeRecord) -> None:
        """Count an exchange that has ended. Probes are not counted."""
        if record.quiet:
            return
        now, result = self._clock(), result_of(record)
        number = int(now / STEP_SECONDS)
        known, count = self._steps[number % STEPS]
        self._steps[number % STEPS] = (number, count + 1 if known == number else 1)
        minute = self._minute(int(now / MINUTE_SECONDS))
        minute.results[result] += 1
        outcome = _known(_outcome_of(record), self._outcomes, OUTCOMES_MAX)
        minute.outcomes[outcome] += 1
        self._outcomes[outcome] += 1
        caller = _known(record.caller or UNKNOWN_CALLER, self._callers, CALLERS_MAX)
        minute.callers[caller][result] += 1
        self._callers[caller][result] += 1
        if record.events and record.first_byte_at is not None and record.status == HTTPStatus.OK:
            minute.first_events[bucket_of(record.first_byte_at - record.started)] += 1
        if result in self._problems:
            self._problems[result].append(self._problem(record, result))

    def reading(self) -> TrafficReading:
        """Return the traffic of the last hour."""
        now = self._clock()
        first_step = max(int(now / STEP_SECONDS) - STEPS, _NEVER)
        last_minute = int(now / MINUTE_SECONDS)
        for place, minute in enumerate(self._minutes):
            if minute.number <= last_minute - MINUTES:
                self._forget(place)
        minutes = {minute.number: minute for minute in self._minutes if minute.number > _NEVER}
        recent = Counter[str]()
        for number in range(last_minute - RECENT_MINUTES + 1, last_minute + 1):
            for name, results in minutes[number].callers.items() if number in minutes else ():
                recent[name] += results.total()
        return TrafficReading(
            at=now,
            steps={number: count for number, count in self._steps if number > first_step},
            minutes={
                number: MinuteReading(dict(minute.results), dict(minute.first_events))
                for number, minute in minutes.items()
            },
            callers={
                name: CallerTraffic(recent[name], dict(results)) for name, results in self._callers.items()
            },
            outcomes=dict(self._outcomes),
            problems=[problem for problems in self._problems.values() for problem in problems],
        )

    def _minute(self, number: int) -> _Minute:
        place = number % MINUTES
        if self._minutes[place].number != number:
            self._forget(place)
            self._minutes[place] = _Minute(number)
        return self._minutes[place]

    def _forget(self, place: int) -> None:
        """Empty a place of the ring, and subtract its counts from the sums."""
        minute, self._minutes[place] = self._minutes[place], _Minute(_NEVER)
        self._outcomes -= minute.outcomes
        for name, results in minute.callers.items():
            self._callers[name] -= results
            if not self._callers[name]:
                del self._callers[name]

    def _problem(self, record: ExchangeRecord, result: ExchangeResult) -> ExchangeProblem:
        return ExchangeProblem(
            at=self._wall(),
            result=result,
            request_id=record.request_id,
            outcome=_outcome_of(record),
            status=record.status,
            caller=record.caller,
            endpoint=record.endpoint,
            upstream=record.upstream,
            reason=None if record.reason is None else record.reason[:REASON_CHARACTERS_MAX],
        )


def result_of(record: ExchangeRecord) -> ExchangeResult:
    """Return how an exchange ended."""
    if record.outcome in _LEFT:
        return "left"
    status = record.status or 0
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "failed"
    if status >= HTTPStatus.BAD_REQUEST:
        return "rejected"
    return "ok" if record.outcome == "ok" else "failed"


def _outcome_of(record: ExchangeRecord) -> str:
    """Return the outcome, or `upstream_4xx` and `upstream_5xx` for error statuses that were relayed."""
    if record.outcome == "ok" and (record.status or 0) >= HTTPStatus.BAD_REQUEST:
        return f"upstream_{(record.status or 0) // 100}xx"
    return record.outcome


def _known(name: str, names: Collection[str], limit: int) -> str:
    """Return a name under which to count: `other` for a new one if there are too many."""
    return name if name in names or len(names) < limit else OTHER


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket of a time."""
    milliseconds = max(seconds * 1000, 1.0)
    return min(math.ceil(math.log(milliseconds) / _LOG_GROWTH), BUCKETS - 1)


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """Return the seconds that a share of the times does not exceed, to within 6%; None without times."""
    wanted = share * sum(buckets.values())
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= wanted:
            return float(BUCKET_GROWTH ** (bucket - 0.5)) / 1000
    return None
