"""The status page of one worker: its event streams in virtual time, and the reports of other workers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest

from proxy.drain import Drain
from proxy.errors import NotFound, ServerOverloaded
from proxy.services import Services
from proxy.status import service
from proxy.status.report import StatusReport
from proxy.status.service import AGE_SECONDS, OPENING, PERIOD_SECONDS, READERS_MAX, StatusService
from proxy.status.words import ENGLISH
from proxy.telemetry.worker_reports import WorkerReports
from tests.browser.scripted_status import CIRCUIT_OPEN, EMPTY, EXPIRED
from tests.credentials.fakes import virtually

PARTS = ("summary", "callers", "relay", "credentials", "upstreams", "problems")


class Worker:
    """A worker whose report the test chooses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reports: WorkerReports | None = None) -> None:
        self.report: StatusReport | None = EMPTY
        self.drain = Drain()
        monkeypatch.setattr(service, "read_report", lambda shown: shown.report)
        self.service = StatusService(lambda: cast(Services, self), reports, self.drain)

    def stream(self, may_read: Callable[[], bool] = lambda: True) -> AsyncIterator[bytes]:
        """The events for a reader of the English page."""
        return self.service.stream(ENGLISH, may_read)


def parts_in(events: bytes) -> list[str]:
    """The names of the parts that some events replace."""
    return [name for name in PARTS if f'id="{name}"'.encode() in events]


# --- event streams


@virtually
async def test_a_stream_sends_all_parts_and_then_those_that_change() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        worker = Worker(monkeypatch)
        stream = worker.stream()
        assert await anext(stream) == OPENING
        assert parts_in(await anext(stream)) == [*PARTS]
        worker.report = CIRCUIT_OPEN
        changed = parts_in(await anext(stream))
        assert "upstreams" in changed
        worker.report = EXPIRED
        assert "credentials" in parts_in(await anext(stream))


@virtually
async def test_every_line_of_an_event_is_data() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        stream = Worker(monkeypatch).stream()
        await anext(stream)
        blocks = (await anext(stream)).decode().removesuffix("\n\n").split("\n\n")
    assert len(blocks) == len(PARTS)
    for block in blocks:
        event, *lines = block.split("\n")
        assert event == "event: part"
        assert all(line.startswith("data: ") for line in lines)


@virtually
async def test_a_page_that_does_not_change_sends_nothing_until_its_stream_is_old() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(
            "proxy.status.service.time.time", lambda: 1_795_700_000.0
        )  # the page shows the time
        began = asyncio.get_running_loop().time()
        events = [event async for event in Worker(monkeypatch).stream()]
    assert len(events) == 2
    lasted = asyncio.get_running_loop().time() - began
    assert AGE_SECONDS[0] <= lasted <= AGE_SECONDS[1] + PERIOD_SECONDS


@virtually
async def test_a_stream_ends_when_its_reader_may_no_longer_read() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        allowed = [True, True, False]
        events = [event async for event in Worker(monkeypatch).stream(lambda: allowed.pop(0))]
    assert allowed == []
    assert events[0] == OPENING


@virtually
async def test_a_stream_ends_at_once_when_the_drain_starts() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        worker = Worker(monkeypatch)
        stream = worker.stream()
        await anext(stream)
        await anext(stream)
        began = asyncio.get_running_loop().time()
        worker.drain.started = True
        assert [event async for event in stream] == []
        assert asyncio.get_running_loop().time() == began


async def test_a_worker_has_a_limited_number_of_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    status = Worker(monkeypatch).service
    with contextlib.ExitStack() as readers:
        for _ in range(READERS_MAX):
            readers.enter_context(status.reading())
        with pytest.raises(ServerOverloaded), status.reading():
            pass
    with status.reading():  # their places are free again
        pass


# --- the overview


async def test_a_configuration_without_a_status_page_has_no_overview(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker(monkeypatch)
    worker.report = None
    with pytest.raises(NotFound):
        await worker.service.overview()


async def test_a_single_worker_shows_its_own_report(monkeypatch: pytest.MonkeyPatch) -> None:
    overview = await Worker(monkeypatch).service.overview()
    assert (overview.workers, overview.silent) == (1, 0)


async def test_several_workers_show_the_reports_that_they_offer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Worker(monkeypatch, WorkerReports(tmp_path, 0, 3))
    second = Worker(monkeypatch, WorkerReports(tmp_path, 1, 3))
    second.report = CIRCUIT_OPEN
    async with first.service.offered(), second.service.offered():
        overview = await first.service.overview()
        assert (overview.workers, overview.silent) == (3, 1)  # the third does not run
        assert overview.upstreams[0].circuits["opened"] == 1
        second.report = None  # its configuration has lost its status page
        assert (await first.service.overview()).silent == 2


def test_the_page_has_its_own_files_and_the_colours_of_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"status.css", "status.js", "tokens.css"} <= {*Worker(monkeypatch).service.files}
