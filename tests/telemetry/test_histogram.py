"""Histograms: buckets are cumulative and include their bounds."""

from proxy.telemetry.histogram import Histogram


def test_buckets_are_cumulative_and_include_their_bounds() -> None:
    histogram = Histogram((0.005, 0.01, 300.0))
    for value in (0.0, 0.005, 0.006, 300.0, 10_000.0):
        histogram.add(value)
    assert histogram.cumulative() == [("0.005", 2), ("0.01", 3), ("300.0", 4), ("+Inf", 5)]
    assert histogram.sum == 10_300.011
