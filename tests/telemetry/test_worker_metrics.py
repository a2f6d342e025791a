"""The metrics of several workers: one text, in which each sample names its worker."""

from prometheus_client.parser import text_string_to_metric_families

from proxy.telemetry.worker_metrics import merge

ONE = """# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{kind="a } b"} 1.0
# HELP age_seconds Age.
# TYPE age_seconds gauge
age_seconds 5.0
"""
TWO = """# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{kind="a } b"} 2.0
# HELP new_total New.
# TYPE new_total counter
new_total 7.0
"""


def test_the_samples_of_a_family_are_grouped_with_their_workers() -> None:
    merged = merge({0: ONE.encode(), 1: TWO.encode()}).decode()
    samples = {
        (sample.name, sample.labels.get("kind"), sample.labels["worker"]): sample.value
        for family in text_string_to_metric_families(merged)
        for sample in family.samples
    }
    assert samples == {
        ("calls_total", "a } b", "0"): 1.0,
        ("calls_total", "a } b", "1"): 2.0,
        ("age_seconds", None, "0"): 5.0,
        ("new_total", None, "1"): 7.0,
    }
    assert merged.count("# HELP calls_total") == 1
