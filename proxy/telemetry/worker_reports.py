"""Reports of all workers of a service: each offers its own over sockets, and asks the others for theirs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from proxy.telemetry.logs import get_logger

ASK_SECONDS: Final = 1.0
"""Timeout for the report of one worker. A worker that exceeds it is left out."""


class WorkerReports:
    """What one worker offers to the others, and how it asks them.

    Args:
        folder: The folder for the sockets; only the user of the service can reach it.
        worker: The number of this worker.
        workers: The number of workers.
    """

    def __init__(self, folder: Path, worker: int, workers: int) -> None:
        self._folder = folder
        self._worker = worker
        self.workers = workers
        """How many workers there are."""

    @contextlib.asynccontextmanager
    async def offered(self, kind: str, render: Callable[[], bytes]) -> AsyncIterator[None]:
        """Answer the other workers for as long as the block runs.

        Args:
            kind: The name of the report, such as `metrics`.
            render: Returns the report.
        """

        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError, TimeoutError):
                writer.write(render())
                async with asyncio.timeout(ASK_SECONDS):
                    await writer.drain()
            writer.close()

        path = self._path(kind, self._worker)
        path.unlink(missing_ok=True)  # left behind by a worker that died
        async with await asyncio.start_unix_server(answer, path):
            yield

    async def collect(self, kind: str, own: bytes) -> dict[int, bytes]:
        """Return the reports of all workers by their numbers, without those of workers that do not answer.

        Args:
            kind: The name of the report.
            own: The report of this worker.
        """
        others = [number for number in range(self.workers) if number != self._worker]
        answers = await asyncio.gather(*(self._ask(kind, number) for number in others))
        reports = {self._worker: own, **dict(zip(others, answers, strict=True))}
        return {number: reports[number] for number in sorted(reports) if reports[number]}

    async def _ask(self, kind: str, number: int) -> bytes:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._path(kind, number))
                try:
                    return await reader.read()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            get_logger(kind).warning("worker_silent", worker=number, reason=type(error).__name__)
            return b""

    def _path(self, kind: str, number: int) -> Path:
        return self._folder / f"{kind}-{number}"
