"""Metrics in Prometheus' text format: every name in one place, read from plain numbers when scraped.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from proxy.telemetry.logs import dropped_lines
from proxy.telemetry.readings import CIRCUIT_STATES, State, TokenReading, UpstreamReading, UsageTotals

PREFIX: Final = "llm_proxy_"

_GAUGES: Final[dict[str, tuple[str, Callable[[TokenReading], float]]]] = {
    "token_remaining_seconds": (
        "Seconds that the token in hand may still be sent.",
        lambda reading: reading.remaining_seconds,
    ),
    "token_generation": ("Number of the newest token.", lambda reading: reading.generation),
    "token_waiters": ("Requests that wait for a token.", lambda reading: reading.waiters),
    "token_backoff_seconds": (
        "Seconds until the next fetch may begin, after a failure.",
        lambda reading: reading.backoff_seconds,
    ),
    "token_learned_life_seconds": (
        "Life that tokens are observed to have, while it is believed over the announced one; else 0.",
        lambda reading: reading.learned_life_seconds,
    ),
}
_COUNTERS: Final[dict[str, tuple[str, str, dict[str, Callable[[TokenReading], float]]]]] = {
    "token_served": (
        "Tokens handed out without a wait.",
        "state",
        {
            "fresh": lambda reading: reading.counts.served_fresh,
            "stale": lambda reading: reading.counts.served_stale,
        },
    ),
    "token_fetch": (
        "Fetches from the token source, by how they ended.",
        "result",
        {
            "ok": lambda reading: reading.counts.fetches_ok,
            "failed_passing": lambda reading: reading.counts.fetches_failed_passing,
            "failed_permanent": lambda reading: reading.counts.fetches_failed_permanent,
        },
    ),
    "token_invalidations": (
        "Refusals by an upstream, by whether they led to a fetch.",
        "effective",
        {
            "true": lambda reading: reading.counts.rejections,
            "false": lambda reading: reading.counts.rejections_without_effect,
        },
    ),
    "token_early_deaths": (
        "Tokens that an upstream rejected before their announced end.",
        "",
        {"": lambda reading: reading.counts.early_deaths},
    ),
    "token_adopted": (
        "Tokens taken over from another process of the fleet.",
        "",
        {"": lambda reading: reading.counts.adopted},
    ),
    "token_store_errors": (
        "Times that the shared store could not be asked.",
        "",
        {"": lambda reading: reading.counts.store_errors},
    ),
    "token_lease_wait_seconds": (
        "Seconds spent on waiting for another process's fetch.",
        "",
        {"": lambda reading: reading.counts.lease_wait_seconds},
    ),
}
_SUMMARIES: Final[dict[str, tuple[str, Callable[[TokenReading], tuple[int, float]]]]] = {
    "token_fetch_seconds": (
        "Time of fetches.",
        lambda reading: (reading.counts.fetches, reading.counts.fetch_seconds),
    ),
    "token_wait_seconds": (
        "Time that requests waited for a token.",
        lambda reading: (reading.counts.waits, reading.counts.wait_seconds),
    ),
}


class Metrics:
    """The registry of one worker.

    Args:
        tokens: Gives how each credential stands.
        usage: What callers used.
        upstreams: Gives how each upstream stands.
    """

    def __init__(
        self,
        tokens: Callable[[], Iterable[TokenReading]],
        usage: UsageTotals | None = None,
        upstreams: Callable[[], Iterable[UpstreamReading]] = tuple,
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_TokenCollector(tokens))
        self._registry.register(_UpstreamCollector(upstreams))
        self._registry.register(_UsageCollector(usage or UsageTotals()))
        self._registry.register(_LogCollector())
        ProcessCollector(registry=self._registry)

    def render(self) -> tuple[bytes, str]:
        """The metrics as text, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _TokenCollector(Collector):
    def __init__(self, tokens: Callable[[], Iterable[TokenReading]]) -> None:
        self._tokens = tokens

    def collect(self) -> Iterator[Metric]:
        """The families, from the numbers of this moment."""
        readings = [*self._tokens()]
        yield _states(readings)
        for name in _GAUGES:
            yield _gauge(name, readings)
        for name in _COUNTERS:
            yield _counter(name, readings)
        for name in _SUMMARIES:
            yield _summary(name, readings)


class _UpstreamCollector(Collector):
    def __init__(self, upstreams: Callable[[], Iterable[UpstreamReading]]) -> None:
        self._upstreams = upstreams

    def collect(self) -> Iterator[Metric]:
        """The families, from the numbers of this moment."""
        readings = [*self._upstreams()]
        text = "Requests to upstreams, by the class of their status or the code of their error."
        attempts = CounterMetricFamily(PREFIX + "upstream_attempts", text, labels=["upstream", "result"])
        text = "State of an upstream's circuit: 1 for the one that it is in."
        circuit = GaugeMetricFamily(PREFIX + "upstream_circuit", text, labels=["upstream", "state"])
        for reading in readings:
            for result, count in reading.attempts.items():
                attempts.add_metric([reading.upstream, result], count)
            for state in CIRCUIT_STATES if reading.circuit else ():
                circuit.add_metric([reading.upstream, state], float(state == reading.circuit))
        yield attempts
        yield circuit


class _UsageCollector(Collector):
    def __init__(self, usage: UsageTotals) -> None:
        self._usage = usage

    def collect(self) -> Iterator[Metric]:
        """One family, from the sums of this moment."""
        text = "Tokens of models that were used, as upstreams count them."
        labels = ["caller", "model", "upstream", "kind"]
        family = CounterMetricFamily(PREFIX + "tokens", text, labels=labels)
        for key, (prompt, completion) in self._usage:
            family.add_metric([*key, "prompt"], prompt)
            family.add_metric([*key, "completion"], completion)
        yield family


class _LogCollector(Collector):
    def collect(self) -> Iterator[Metric]:
        """One family, from the number of this moment."""
        text = "Log lines that were lost: the log was full, or took none for too long."
        yield CounterMetricFamily(PREFIX + "log_lines_dropped", text, value=dropped_lines())


def _states(readings: Iterable[TokenReading]) -> Metric:
    """One series a state, 1 for the one that is."""
    text = "State of the token in hand: 1 for the one that it is in."
    family = GaugeMetricFamily(PREFIX + "token_state", text, labels=["credential", "state"])
    for reading in readings:
        for state in get_args(State):
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
