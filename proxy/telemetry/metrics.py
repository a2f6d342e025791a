"""Metrics in Prometheus' text format, computed from plain numbers when they are scraped.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.telemetry.exchange_totals import ExchangeTotals, OffloadKey, RequestKey
from proxy.telemetry.histogram import Histogram
from proxy.telemetry.logs import dropped_lines
from proxy.telemetry.loop_lag import LoopLag
from proxy.telemetry.readings import (
    CIRCUIT_STATES,
    TokenReading,
    TokenState,
    UpstreamReading,
    UsageTotals,
    WorkerReading,
)

PREFIX: Final = "llm_proxy_"

_GAUGES: Final[dict[str, tuple[str, Callable[[TokenReading], float]]]] = {
    "token_remaining_seconds": (
        "Seconds for which the current token may still be sent.",
        lambda reading: reading.remaining_seconds,
    ),
    "token_lifetime_seconds": (
        "Seconds for which the current token could be sent when it was fetched.",
        lambda reading: reading.lifetime_seconds,
    ),
    "token_generation": ("Number of the newest token.", lambda reading: reading.generation),
    "token_waiters": ("Requests that are waiting for a token.", lambda reading: reading.waiters),
    "token_backoff_seconds": (
        "Seconds until the next fetch may begin, after a failure.",
        lambda reading: reading.backoff_seconds,
    ),
    "token_learned_life_seconds": (
        "Observed lifetime of tokens, if it is used instead of the announced one, otherwise 0.",
        lambda reading: reading.learned_life_seconds,
    ),
}
_COUNTERS: Final[dict[str, tuple[str, str, dict[str, Callable[[TokenReading], float]]]]] = {
    "token_served": (
        "Tokens served without waiting.",
        "state",
        {
            "fresh": lambda reading: reading.counts.served_fresh,
            "stale": lambda reading: reading.counts.served_stale,
        },
    ),
    "token_fetch": (
        "Fetches from the token source by result.",
        "result",
        {
            "ok": lambda reading: reading.counts.fetches_ok,
            "failed_passing": lambda reading: reading.counts.fetches_failed_passing,
            "failed_permanent": lambda reading: reading.counts.fetches_failed_permanent,
        },
    ),
    "token_invalidations": (
        "Token rejections by an upstream, by whether they caused a fetch.",
        "effective",
        {
            "true": lambda reading: reading.counts.rejections,
            "false": lambda reading: reading.counts.rejections_without_effect,
        },
    ),
    "token_early_deaths": (
        "Tokens that an upstream rejected before their announced expiry.",
        "",
        {"": lambda reading: reading.counts.early_deaths},
    ),
    "token_adopted": (
        "Tokens adopted from another process or credential.",
        "",
        {"": lambda reading: reading.counts.adopted},
    ),
    "token_store_errors": (
        "Failed operations of the shared store.",
        "",
        {"": lambda reading: reading.counts.store_errors},
    ),
    "token_lease_wait_seconds": (
        "Seconds spent waiting for a fetch by another process or credential.",
        "",
        {"": lambda reading: reading.counts.lease_wait_seconds},
    ),
}
_SUMMARIES: Final[dict[str, tuple[str, Callable[[TokenReading], tuple[int, float]]]]] = {
    "token_fetch_seconds": (
        "Duration of fetches.",
        lambda reading: (reading.counts.fetches, reading.counts.fetch_seconds),
    ),
    "token_wait_seconds": (
        "Time that requests waited for a token.",
        lambda reading: (reading.counts.waits, reading.counts.wait_seconds),
    ),
}


class Metrics:
    """The metrics of one worker.

    Args:
        tokens: Returns the state of each credential.
        usage: The tokens used so far.
        upstreams: Returns the state of each upstream.
        lag: The lag of the event loop.
        exchanges: The exchanges that have ended.
        worker: Returns what this worker has in hand.
    """

    def __init__(
        self,
        tokens: Callable[[], Iterable[TokenReading]],
        usage: UsageTotals | None = None,
        upstreams: Callable[[], Iterable[UpstreamReading]] = tuple,
        lag: LoopLag | None = None,
        exchanges: ExchangeTotals | None = None,
        worker: Callable[[], WorkerReading] = lambda: WorkerReading(0, 0, 0, (), {}),
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(lambda: _collect_tokens([*tokens()])))
        self._registry.register(_Collector(lambda: _collect_upstreams(upstreams())))
        self._registry.register(_Collector(lambda: _collect_usage(usage or UsageTotals())))
        self._registry.register(_Collector(lambda: _collect_lag(lag or LoopLag())))
        self._registry.register(_Collector(lambda: _collect_exchanges(exchanges or ExchangeTotals())))
        self._registry.register(_Collector(lambda: _collect_worker(worker())))
        self._registry.register(_Collector(_collect_process))
        ProcessCollector(registry=self._registry)

    def render(self) -> tuple[bytes, str]:
        """Return the metrics as text, and the content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Collector(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        """Return the current metrics."""
        return self._collect()


def _collect_tokens(readings: list[TokenReading]) -> Iterator[Metric]:
    yield _states(readings)
    yield from (_gauge(name, readings) for name in _GAUGES)
    yield from (_counter(name, readings) for name in _COUNTERS)
    yield from (_summary(name, readings) for name in _SUMMARIES)


def _collect_upstreams(readings: Iterable[UpstreamReading]) -> Iterator[Metric]:
    text = "Requests to upstreams, by the class of their status or the code of their error."
    attempts = CounterMetricFamily(PREFIX + "upstream_attempts", text, labels=["upstream", "result"])
    text = "State of an upstream's circuit breaker: 1 for the current state."
    circuit = GaugeMetricFamily(PREFIX + "upstream_circuit", text, labels=["upstream", "state"])
    text = "Requests that an upstream has not answered completely."
    running = GaugeMetricFamily(PREFIX + "upstream_requests_running", text, labels=["upstream"])
    text = "The limit on them."
    limit = GaugeMetricFamily(PREFIX + "upstream_requests_limit", text, labels=["upstream"])
    for reading in readings:
        running.add_metric([reading.upstream], reading.running)
        limit.add_metric([reading.upstream], reading.running_max)
        for result, count in reading.attempts.items():
            attempts.add_metric([reading.upstream, result], count)
        for state in CIRCUIT_STATES if reading.circuit else ():
            circuit.add_metric([reading.upstream, state], float(state == reading.circuit))
    yield from (attempts, circuit, running, limit)


def _collect_usage(usage: UsageTotals) -> Iterator[Metric]:
    text = "LLM tokens used, as reported by upstreams."
    family = CounterMetricFamily(PREFIX + "tokens", text, labels=["caller", "model", "upstream", "kind"])
    for key, (prompt, completion) in usage:
        family.add_metric([*key, "prompt"], prompt)
        family.add_metric([*key, "completion"], completion)
    yield family


def _collect_exchanges(totals: ExchangeTotals) -> Iterator[Metric]:
    text = "Exchanges that have ended, by the class of their status and by their outcome."
    requests = CounterMetricFamily(PREFIX + "requests", text, labels=RequestKey._fields)
    for key, count in totals.requests.items():
        requests.add_metric(key, count)
    yield requests
    text = "Answers to nginx, which asks whether it may relay requests itself."
    answers = CounterMetricFamily(PREFIX + "offload_answers", text, labels=OffloadKey._fields)
    for answer, count in totals.offload_answers.items():
        answers.add_metric(answer, count)
    yield answers
    text = "Time from the arrival of a request to its end, which includes the time of its caller."
    yield _histogram("request_duration_seconds", text, "endpoint", totals.durations)
    text = "Time from the arrival of a request to the first byte of its event stream."
    yield _histogram("time_to_first_event_seconds", text, "upstream", totals.first_events)
    for name, text, label, counts in (
        ("events", "Events sent to callers, counted when their streams end.", "upstream", totals.events),
        ("received_bytes", "Bytes of request bodies.", "caller", totals.bytes_received),
        ("sent_bytes", "Bytes of response bodies.", "caller", totals.bytes_sent),
    ):
        family = CounterMetricFamily(PREFIX + name, text, labels=[label])
        for value, count in counts.items():
            family.add_metric([value], count)
        yield family


def _histogram(name: str, text: str, label: str, histograms: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, text, labels=[label])
    for value, histogram in histograms.items():
        family.add_metric([value], histogram.cumulative(), histogram.sum)
    return family


def _collect_worker(reading: WorkerReading) -> Iterator[Metric]:
    for name, text, value in (
        ("attempts_running", "Attempts at upstreams that have not ended.", reading.attempts_running),
        ("held_bytes", "Bytes of request bodies and WebSocket messages held in memory.", reading.held_bytes),
        ("held_bytes_limit", "The limit on them, for all callers together.", reading.held_bytes_max),
    ):
        yield GaugeMetricFamily(PREFIX + name, text, value=value)
    text = "Running exchanges that are streams or may become one."
    streams = GaugeMetricFamily(PREFIX + "streams", text, labels=["caller"])
    text = "The limit on the streams of a caller, if there is one."
    limit = GaugeMetricFamily(PREFIX + "streams_limit", text, labels=["caller"])
    text = "Requests rejected because their caller exceeded a limit."
    rejected = CounterMetricFamily(PREFIX + "limit_refusals", text, labels=["caller", "limit"])
    for caller in reading.callers:
        streams.add_metric([caller.caller], caller.streams)
        if caller.streams_max is not None:
            limit.add_metric([caller.caller], caller.streams_max)
        for name, count in caller.rejected.items():
            rejected.add_metric([caller.caller, name], count)
    yield from (streams, limit, rejected)
    text = "Requests that the server rejected before they reached the application, by status."
    rejected = CounterMetricFamily(PREFIX + "http_rejections", text, labels=["status"])
    for status, count in reading.http_rejections.items():
        rejected.add_metric([str(status)], count)
    yield rejected


def _collect_process() -> Iterator[Metric]:
    text = "Log lines dropped because the log was full or too slow."
    yield CounterMetricFamily(PREFIX + "log_lines_dropped", text, value=dropped_lines())
    text = "The version of the proxy; the value is 1."
    build = GaugeMetricFamily(PREFIX + "build_info", text, labels=["version"])
    build.add_metric([__version__], 1)
    yield build


def _collect_lag(lag: LoopLag) -> Iterator[Metric]:
    name = PREFIX + "loop_lag_seconds"
    text = "How late the event loop runs what is due."
    yield HistogramMetricFamily(name, text, buckets=lag.histogram.cumulative(), sum_value=lag.histogram.sum)
    text = "The longest lag of the event loop within the last minute."
    yield GaugeMetricFamily(PREFIX + "loop_lag_max_seconds", text, value=lag.maximum(time.monotonic()))


def _states(readings: Iterable[TokenReading]) -> Metric:
    text = "State of the current token: 1 for the current state."
    family = GaugeMetricFamily(PREFIX + "token_state", text, labels=["credential", "state"])
    for reading in readings:
        for state in get_args(TokenState):
            family.add_metric([reading.credential, state], float(state == reading.state))
    return family


def _gauge(name: str, readings: Iterable[TokenReading]) -> Metric:
    text, value = _GAUGES[name]
    family = GaugeMetricFamily(PREFIX + name, text, labels=["credential"])
    for reading in readings:
        family.add_metric([reading.credential], value(reading))
    return family


def _counter(name: str, readings: Iterable[TokenReading]) -> Metric:
    text, label, values = _COUNTERS[name]
    size = 2 if label else 1
    family = CounterMetricFamily(PREFIX + name, text, labels=["credential", label][:size])
    for reading in readings:
        for key, count in values.items():
            family.add_metric([reading.credential, key][:size], count(reading))
    return family


def _summary(name: str, readings: Iterable[TokenReading]) -> Metric:
    text, parts = _SUMMARIES[name]
    family = SummaryMetricFamily(PREFIX + name, text, labels=["credential"])
    for reading in readings:
        times, seconds = parts(reading)
        family.add_metric([reading.credential], count_value=times, sum_value=seconds)
    return family
