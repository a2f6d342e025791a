"""Errors, gaps and late tokens, and which of them a busy machine explains (pure)."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

STALL_SECONDS: Final = 0.2
"""A control without a good answer for longer has stalled, because the machine is busy."""
GOOD: Final = "good"
"""The kind of requests that must succeed."""
NO_ANSWER: Final = 0
"""The status of a request whose connection broke, or whose caller gave up."""

Interval = tuple[float, float]


class Record(NamedTuple):
    """A request, with times of the machine's monotonic clock."""

    target: str
    kind: str
    started: float
    ended: float
    status: int
    code: str
    retry_after: str | None

    @property
    def is_good(self) -> bool:
        """Whether the response is good."""
        return self.status == 200


def read_records(text: str) -> list[Record]:
    """Read the records that the callers write: one JSON list per line."""
    return [Record(*json.loads(line)) for line in text.splitlines()]


def errors_of(records: Iterable[Record]) -> Counter[str]:
    """Count each status and code of bad responses."""
    return Counter(f"{record.status} {record.code}".strip() for record in records if not record.is_good)


def without_retry_after(records: Iterable[Record]) -> int:
    """Count the responses with status 503 and without Retry-After."""
    return sum(record.status == 503 and record.retry_after is None for record in records)


def error_span(records: Iterable[Record]) -> float:
    """Return the seconds from the first error to the last."""
    ends = [record.ended for record in records if not record.is_good]
    return max(ends) - min(ends) if ends else 0.0


def gaps_between(records: Iterable[Record], window: Interval) -> list[Interval]:
    """Return the times between consecutive good answers, from the start of the window to its end."""
    begin, end = window
    moments = sorted(record.ended for record in records if record.is_good and begin < record.ended < end)
    return [*pairwise([begin, *moments, end])]


def stalls_of(controls: Iterable[Sequence[Record]], window: Interval) -> list[Interval]:
    """Return the times in which a control got no good answer for long."""
    return [
        (begin, end)
        for records in controls
        for begin, end in gaps_between(records, window)
        if end - begin > STALL_SECONDS
    ]


class Late(NamedTuple):
    """A token that arrived at the upstream after its announced expiry."""

    member: str
    told: float
    arrived: float


class Gap(NamedTuple):
    """A time without a good answer: in total, and without the stalls of the controls."""

    net: float
    gross: float = 0.0
    target: str = ""
    begin: float = 0.0


class Wait(NamedTuple):
    """A time, and the part of it in which a process waited for a processor."""

    begin: float
    end: float
    seconds: float


class Starvation:
    """The times in which something other than the service held up the service's answers.

    Args:
        stalls: The times in which a control or a helper stalled; they may overlap.
        waits: The waits of each member for a processor.
    """

    def __init__(self, stalls: Iterable[Interval], waits: Mapping[str, Sequence[Wait]]) -> None:
        self.stalls = _merged(stalls)
        self._waits = waits

    @property
    def seconds(self) -> float:
        """The total length of all stalls."""
        return sum(end - begin for begin, end in self.stalls)

    def within(self, interval: Interval, target: str) -> float:
        """Return the seconds of an interval in which something delayed the responses of the target."""
        held_up = _overlap(interval, self.stalls)
        for wait in self._waits.get(target, ()):
            part = max(interval[0], wait.begin), min(interval[1], wait.end)
            if part[0] < part[1]:
                waited = wait.seconds * (part[1] - part[0]) / (wait.end - wait.begin)
                held_up += max(waited - _overlap(part, self.stalls), 0.0)  # counted already
        return min(held_up, interval[1] - interval[0])

    def longest_gap(self, records: Sequence[Record], window: Interval) -> Gap:
        """The longest gap of all targets, by its net length.

        Args:
            records: Of targets that should be well.
            window: The time to look at.
        """
        by_target = {record.target: list[Record]() for record in records}
        for record in records:
            by_target[record.target].append(record)
        return max(
            (
                Gap(end - begin - self.within((begin, end), target), end - begin, target, begin)
                for target, found in by_target.items()
                for begin, end in gaps_between(found, window)
            ),
            default=Gap(window[1] - window[0]),
        )

    def really_late(self, late: Iterable[Late]) -> list[Late]:
        """Return the tokens that arrived later than the stalls explain."""
        return [
            one for one in late if self.within((one.told, one.arrived), one.member) < one.arrived - one.told
        ]


def _merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Merge overlapping intervals, and return them in order."""
    merged: list[Interval] = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _overlap(interval: Interval, others: Iterable[Interval]) -> float:
    begin, end = interval
    return sum(max(min(end, there) - max(begin, here), 0.0) for here, there in others)
