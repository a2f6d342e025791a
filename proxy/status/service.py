"""The status page of one worker: its files, its reports, and the event streams of its readers."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Final

from proxy.chat.page_files import PageFile, read_page_files
from proxy.drain import Drain
from proxy.errors import NotFound, ServerOverloaded
from proxy.services import Services
from proxy.status.overview import Overview, merge
from proxy.status.page import parts
from proxy.status.report import KIND, decode, encode, read_report
from proxy.status.words import Words
from proxy.telemetry.worker_reports import WorkerReports

READERS_MAX: Final = 10
"""Event streams at the same time in one worker."""
PERIOD_SECONDS: Final = 2.0
AGE_SECONDS: Final = (600.0, 900.0)
"""Limits of the random lifetime of a stream, after which the browser reconnects. It also ends streams whose
reader vanished unnoticed."""
OPENING: Final = b"retry: 2000\n\n"
"""Milliseconds after which a browser reconnects."""
_CHAT_STYLE: Final = "tokens.css"


class StatusService:
    """What the status page of one worker needs for its whole life.

    Args:
        current: Returns the services of the current configuration.
        reports: The reports of the other workers, if there are several workers.
        drain: Ends the streams when it starts.
    """

    def __init__(self, current: Callable[[], Services], reports: WorkerReports | None, drain: Drain) -> None:
        self.current = current
        self.files: Mapping[str, PageFile] = {
            **read_page_files("proxy.status"),
            _CHAT_STYLE: read_page_files("proxy.chat")[_CHAT_STYLE],
        }
        self._reports = reports
        self._readers = 0
        self._closing = asyncio.Event()
        drain.when_started(self._closing.set)

    @contextlib.asynccontextmanager
    async def offered(self) -> AsyncIterator[None]:
        """Give this worker's report to the other workers for as long as the block runs."""
        async with contextlib.AsyncExitStack() as stack:
            if self._reports is not None:
                offered = self._reports.offered(KIND, lambda: encode(read_report(self.current())))
                await stack.enter_async_context(offered)
            yield

    async def overview(self) -> Overview:
        """Return the overview of all workers.

        Raises:
            NotFound: The configuration has no status page.
        """
        own = read_report(self.current())
        if own is None:
            raise NotFound
        if self._reports is None:
            return merge([own], 1)
        found = await self._reports.collect(KIND, encode(own))
        return merge([decode(report) for report in found.values()], self._reports.workers)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Count a reader of the stream.

        Raises:
            ServerOverloaded: There are too many.
        """
        if self._readers >= READERS_MAX:
            raise ServerOverloaded(reason="readers of the status page")
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    async def stream(self, words: Words, may_read: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield the parts of the page as events: all of them first, then those that have changed.

        It ends with the session of the reader, with the configuration of the page, and with the service.

        Args:
            may_read: Whether the reader may still read.
        """
        end = asyncio.get_running_loop().time() + random.uniform(*AGE_SECONDS)  # noqa: S311  spreads reconnections
        sent: dict[str, str] = {}
        yield OPENING
        while may_read():
            shown = parts(await self.overview(), words, time.time())
            changed = [html for name, html in shown.items() if sent.get(name) != html]
            if changed:
                yield b"".join(map(_event, changed))
            sent = shown
            try:
                async with asyncio.timeout(PERIOD_SECONDS):
                    await self._closing.wait()
                return
            except TimeoutError:
                if asyncio.get_running_loop().time() >= end:
                    return


def _event(html: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in html.splitlines())
    return f"event: part\n{lines}\n".encode()
