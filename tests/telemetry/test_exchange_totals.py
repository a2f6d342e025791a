"""Totals of exchanges: each is counted once, with bounded labels, in cumulative buckets."""

import time

from prometheus_client.parser import text_string_to_metric_families

from proxy.telemetry import ExchangeRecord, ExchangeTotals, Metrics
from proxy.telemetry.exchange_totals import RequestKey


def ended(**values: object) -> ExchangeRecord:
    """Return the record of an exchange that has ended."""
    record = ExchangeRecord("id", "POST", "/v1/chat/completions")
    for name, value in values.items():
        setattr(record, name, value)
    return record


def test_an_exchange_is_counted_by_caller_endpoint_status_and_outcome() -> None:
    totals = ExchangeTotals()
    for _ in range(2):
        totals.count(
            ended(caller="ragflow", endpoint="embeddings", status=200, outcome="ok", bytes_up=3, bytes_down=5)
        )
    totals.count(ended(caller="ragflow", endpoint="embeddings", status=502, outcome="upstream_unreachable"))
    assert totals.requests == {
        RequestKey("ragflow", "embeddings", "2xx", "ok"): 2,
        RequestKey("ragflow", "embeddings", "5xx", "upstream_unreachable"): 1,
    }
    assert totals.bytes_received == {"ragflow": 6}
    assert totals.bytes_sent == {"ragflow": 10}
    assert totals.events == totals.first_events == {}


def test_an_exchange_that_ended_early_is_counted_without_names() -> None:
    totals = ExchangeTotals()
    totals.count(ended(outcome="client_gone"))
    assert [*totals.requests] == [RequestKey("unknown", "unknown", "none", "client_gone")]


def test_a_probe_is_not_counted() -> None:
    totals = ExchangeTotals()
    totals.count(ended(status=200, outcome="ok", quiet=True))
    assert not totals.requests
    assert not totals.durations


def test_a_stream_is_counted_with_its_events_and_its_first_one() -> None:
    totals = ExchangeTotals()
    record = ended(upstream="chat", endpoint="chat/completions", status=200, outcome="ok", events=7)
    record.started = time.monotonic() - 3
    record.first_byte_at = record.started + 0.04
    totals.count(record)
    assert totals.events == {"chat": 7}
    assert dict(totals.first_events["chat"].cumulative())["0.05"] == 1
    assert 3 <= totals.durations["chat/completions"].sum < 60


def test_the_metrics_show_a_histogram() -> None:
    totals = ExchangeTotals()
    totals.count(ended(endpoint="embeddings", status=200, outcome="ok"))
    text = Metrics(list, exchanges=totals).render()[0].decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    found = families["llm_proxy_request_duration_seconds"]
    assert found.type == "histogram"
    count = next(sample for sample in found.samples if sample.name.endswith("_count"))
    assert (count.labels, count.value) == ({"endpoint": "embeddings"}, 1)
