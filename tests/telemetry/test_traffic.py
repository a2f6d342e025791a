"""The traffic of the last hour: counted in rings that forget, with a limited number of names."""

import pytest

from proxy.errors import ProxyError, RateLimited, UpstreamTimeout
from proxy.telemetry import ExchangeRecord, Traffic
from proxy.telemetry.traffic import (
    BUCKETS,
    CALLERS_MAX,
    OTHER,
    OUTCOMES_MAX,
    PROBLEMS_MAX,
    REASON_CHARACTERS_MAX,
    UNKNOWN_CALLER,
    CallerTraffic,
    bucket_of,
    percentile,
    result_of,
)


class Clock:
    """Monotonic seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 36_000.0

    def __call__(self) -> float:
        return self.now


def ended(
    outcome: str = "ok",
    status: int | None = 200,
    caller: str | None = "ragflow",
    first_event: float | None = None,
) -> ExchangeRecord:
    """Return the record of an exchange that has ended."""
    record = ExchangeRecord("id-1", "POST", "/v1/chat/completions", started=100.0)
    record.caller, record.status, record.outcome = caller, status, outcome
    if first_event is not None:
        record.events, record.first_byte_at = 3, 100.0 + first_event
    return record


def failed(error: ProxyError) -> ExchangeRecord:
    """Return the record of an exchange that ended with an error."""
    record = ended("", error.status)
    record.fail(error)
    return record


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def traffic(clock: Clock) -> Traffic:
    return Traffic(clock, wall=lambda: 1_700_000_000.0)


@pytest.mark.parametrize(
    ("record", "result"),
    [
        (ended(), "ok"),
        (ended("ok", 404), "rejected"),
        (ended("ok", 500), "failed"),
        (ended("client_gone", None), "left"),
        (ended("slow_reader"), "left"),
        (ended("upstream_aborted"), "failed"),
        (ended("error_inside"), "failed"),
        (ended("shutdown"), "failed"),
        (failed(RateLimited()), "rejected"),
        (failed(UpstreamTimeout()), "failed"),
    ],
)
def test_each_exchange_has_one_result(record: ExchangeRecord, result: str) -> None:
    assert result_of(record) == result


def test_exchanges_are_counted_by_step_minute_caller_and_outcome(traffic: Traffic, clock: Clock) -> None:
    traffic.count(ended())
    traffic.count(ended("ok", 502))
    clock.now += 1
    traffic.count(ended(caller="batch"))
    clock.now += 60
    traffic.count(ended("client_gone"))
    reading = traffic.reading()
    assert reading.steps == {18_000: 3, 18_030: 1}
    assert {number: minute.results for number, minute in reading.minutes.items()} == {
        600: {"ok": 2, "failed": 1},
        601: {"left": 1},
    }
    assert reading.callers == {
        "ragflow": CallerTraffic(3, {"ok": 1, "failed": 1, "left": 1}),
        "batch": CallerTraffic(1, {"ok": 1}),
    }
    assert reading.outcomes == {"ok": 2, "upstream_5xx": 1, "client_gone": 1}


def test_sums_follow_the_minutes(traffic: Traffic, clock: Clock) -> None:
    traffic.count(ended(caller="early"))
    clock.now += 30 * 60
    traffic.count(ended("client_gone", caller="late"))
    assert traffic.reading().callers["early"] == CallerTraffic(0, {"ok": 1})
    assert traffic.reading().callers["late"] == CallerTraffic(1, {"left": 1})
    clock.now += 31 * 60
    assert traffic.reading().callers == {"late": CallerTraffic(0, {"left": 1})}
    assert traffic.reading().outcomes == {"client_gone": 1}
    for _ in range(3):
        clock.now += 60 * 60  # the same slot of the ring, without a reading in between
        traffic.count(ended())
    assert traffic.reading().callers == {"ragflow": CallerTraffic(1, {"ok": 1})}
    assert traffic.reading().outcomes == {"ok": 1}


def test_exchanges_of_unknown_callers_are_counted_together(traffic: Traffic) -> None:
    traffic.count(ended("invalid_api_key", 401, caller=None))
    assert traffic.reading().callers == {UNKNOWN_CALLER: CallerTraffic(1, {"rejected": 1})}


def test_probes_are_not_counted(traffic: Traffic) -> None:
    probe = ended()
    probe.quiet = True
    traffic.count(probe)
    assert traffic.reading().steps == {}


def test_minutes_older_than_the_rings_are_forgotten(traffic: Traffic, clock: Clock) -> None:
    traffic.count(ended())
    clock.now += 299
    assert sum(traffic.reading().steps.values()) == 1
    clock.now += 2
    assert traffic.reading().steps == {}
    clock.now += 3600
    assert traffic.reading().minutes == {}
    for _ in range(500):
        clock.now += 61
        traffic.count(ended())
    reading = traffic.reading()
    assert len(reading.minutes) <= 60
    assert len(reading.steps) <= 150


def test_names_are_bounded(traffic: Traffic) -> None:
    for number in range(CALLERS_MAX + 50):
        traffic.count(ended(f"outcome-{number}", caller=f"caller-{number}"))
    reading = traffic.reading()
    assert len(reading.callers) == CALLERS_MAX + 1
    assert reading.callers[OTHER].results == {"failed": 50}
    assert len(reading.outcomes) == OUTCOMES_MAX + 1


def test_rejections_do_not_displace_failures_and_both_are_bounded(traffic: Traffic) -> None:
    traffic.count(failed(UpstreamTimeout(reason="r" * 1000)))
    for _ in range(100):
        traffic.count(failed(RateLimited()))
    problems = traffic.reading().problems
    assert len(problems) == PROBLEMS_MAX + 1
    (failure,) = [problem for problem in problems if problem.result == "failed"]
    assert (failure.request_id, failure.outcome, failure.status) == ("id-1", "upstream_timeout", 504)
    assert len(failure.reason or "") == REASON_CHARACTERS_MAX


def test_only_streams_have_a_first_event(traffic: Traffic) -> None:
    traffic.count(ended(first_event=0.25))
    traffic.count(ended())
    no_stream = ended(first_event=0.25)
    no_stream.events = None
    traffic.count(no_stream)
    (minute,) = traffic.reading().minutes.values()
    assert minute.first_events == {bucket_of(0.25): 1}


@pytest.mark.parametrize("seconds", [0.0011, 0.02, 0.5, 3.0, 119.0, 600.0])
def test_percentiles_are_within_six_percent(seconds: float) -> None:
    assert percentile({bucket_of(seconds): 10}, 0.5) == pytest.approx(seconds, rel=0.06)


def test_percentiles_count_from_the_shortest_time() -> None:
    buckets = {bucket_of(0.1): 98, bucket_of(5.0): 2}
    assert percentile(buckets, 0.5) == pytest.approx(0.1, rel=0.06)
    assert percentile(buckets, 0.99) == pytest.approx(5.0, rel=0.06)
    assert percentile({}, 0.5) is None


def test_the_longest_and_the_shortest_times_have_a_bucket() -> None:
    assert bucket_of(0.0) == 0
    assert bucket_of(1e9) == BUCKETS - 1
