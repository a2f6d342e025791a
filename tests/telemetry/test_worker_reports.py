"""The reports of several workers: each collects those of all, and leaves out a worker that is silent."""

import asyncio
from pathlib import Path

import pytest

from proxy.telemetry import worker_reports
from proxy.telemetry.worker_reports import WorkerReports


async def test_each_worker_asks_the_others_for_one_kind_of_report(tmp_path: Path) -> None:
    first, second = WorkerReports(tmp_path, 0, 2), WorkerReports(tmp_path, 1, 2)
    async with (
        first.offered("metrics", lambda: b"one"),
        second.offered("metrics", lambda: b"two"),
        second.offered("status", lambda: b"fine"),
    ):
        assert await first.collect("metrics", b"one") == {0: b"one", 1: b"two"}
        assert await second.collect("metrics", b"two") == {0: b"one", 1: b"two"}
        assert await first.collect("status", b"well") == {0: b"well", 1: b"fine"}


async def test_a_worker_that_exited_or_hangs_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_reports, "ASK_SECONDS", 0.05)
    first = WorkerReports(tmp_path, 0, 3)
    ended = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other side disconnects
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_unix_server(hang, tmp_path / "metrics-2"):
        assert await first.collect("metrics", b"own") == {0: b"own"}
        await ended.wait()
