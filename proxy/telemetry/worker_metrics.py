"""The metrics of all workers, each with a label `worker`; the worker that is scraped collects them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from proxy.telemetry.logs import get_logger

ASK_SECONDS: Final = 1.0
"""Timeout for the metrics of one worker. A worker that exceeds it is left out."""


class WorkerMetrics:
    """What one worker offers to the others, and how it asks them.

    Args:
        folder: For the sockets; only the user of the service can reach it.
        worker: The number of this worker.
        workers: How many there are.
    """

    def __init__(self, folder: Path, worker: int, workers: int) -> None:
        self._paths = {number: folder / f"metrics-{number}" for number in range(workers)}
        self._worker = worker

    @contextlib.asynccontextmanager
    async def offered(self, render: Callable[[], bytes]) -> AsyncIterator[None]:
        """Answer the other workers for as long as the block runs."""

        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError, TimeoutError):
                writer.write(render())
                async with asyncio.timeout(ASK_SECONDS):
                    await writer.drain()
            writer.close()

        path = self._paths[self._worker]
        path.unlink(missing_ok=True)  # left behind by a worker that died
        async with await asyncio.start_unix_server(answer, path):
            yield

    async def collect(self, own: bytes) -> bytes:
        """Return the metrics of all workers.

        Args:
            own: Those of this worker.
        """
        others = [number for number in self._paths if number != self._worker]
        answers = await asyncio.gather(*(self._ask(number) for number in others))
        texts = {self._worker: own, **dict(zip(others, answers, strict=True))}
        return merge({number: texts[number].decode() for number in sorted(texts)}).encode()

    async def _ask(self, number: int) -> bytes:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._paths[number])
                try:
                    return await reader.read()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            get_logger("metrics").warning("worker_silent", worker=number, reason=type(error).__name__)
            return b""


def merge(texts: dict[int, str]) -> str:
    """Merge texts of metrics by workers: the samples of a family together, each with its worker (pure)."""
    families: dict[str, list[str]] = {}
    heads: dict[str, list[str]] = {}
    for worker, text in texts.items():
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                head = heads.setdefault(family, [])
                if line not in head:
                    head.append(line)
            elif line:
                families.setdefault(family, []).append(_labelled(line, worker))
    return "".join(f"{line}\n" for family in heads for line in [*heads[family], *families.get(family, [])])


def _labelled(sample: str, worker: int) -> str:
    name, brace, labels = sample.partition("{")
    if brace:
        return f'{name}{{worker="{worker}",{labels}'
    name, _, value = sample.partition(" ")
    return f'{name}{{worker="{worker}"}} {value}'
