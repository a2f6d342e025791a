"""The metrics of several workers: one text, each sample with its worker."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.telemetry import worker_metrics
from proxy.telemetry.worker_metrics import WorkerMetrics, merge

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


def test_the_samples_of_a_family_stand_together_with_their_workers() -> None:
    merged = merge({0: ONE, 1: TWO})
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


async def test_each_worker_asks_the_others(tmp_path: Path) -> None:
    first, second = WorkerMetrics(tmp_path, 0, 2), WorkerMetrics(tmp_path, 1, 2)
    async with first.offered(ONE.encode), second.offered(TWO.encode):
        assert await first.collect(ONE.encode()) == await second.collect(TWO.encode())
        assert b'new_total{worker="1"} 7.0' in await first.collect(ONE.encode())


async def test_a_worker_that_is_gone_or_hangs_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_metrics, "ASK_SECONDS", 0.05)
    first = WorkerMetrics(tmp_path, 0, 3)
    ended = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other side gives up
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_unix_server(hang, tmp_path / "metrics-2"):
        text = await first.collect(ONE.encode())
        await ended.wait()
    assert b'age_seconds{worker="0"} 5.0' in text
    assert b'worker="1"' not in text
    assert b'worker="2"' not in text
