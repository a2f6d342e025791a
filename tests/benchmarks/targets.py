"""A server under test, and the upstream behind it."""

import asyncio
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from tests.benchmarks import wire
from tests.benchmarks.load import MalformedResponseError, build_request, connect
from tests.benchmarks.process import REPOSITORY, Process, children
from tests.ports import free_port

POLL_SECONDS: Final = 0.005
OPEN_FILES: Final = 16384
CALLER_KEY: Final = "sk-bench-7c1f"


class Target(ABC):
    """A server that takes the caller's key and gives the upstream's answer.

    `pids` names the processes whose CPU and memory count.
    """

    name: ClassVar[str]
    mount: ClassVar[str] = "/v1"
    exact: ClassVar[bool] = True
    """Whether it forwards bytes unchanged; otherwise only the texts in them are compared."""
    share: ClassVar[float] = 1.0
    """The part of a round's requests that it gets: less than 1 if it is slow, and more if the CPU time of
    a round would be too short to measure."""
    scenarios: ClassVar[frozenset[str] | None] = None
    """The scenarios that it supports; None for all."""
    ready_seconds_max: ClassVar[float] = 60.0

    def __init__(self, home: Path, upstream: int) -> None:
        self.home = home
        self.upstream = upstream
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{self.mount}"
        self.headers: Mapping[str, str] = {"Authorization": f"Bearer {CALLER_KEY}"}
        self.ready_seconds = 0.0
        """Seconds from the start of the process to its first response."""
        self.process = Process(self.name, home / "output.log")

    @abstractmethod
    def command(self) -> list[str]:
        """Write the settings, return the command line."""

    async def answers(self) -> bool:
        """Send a chat request and return whether it is answered; may raise OSError instead."""
        body = wire.request_body("bench-chat", stream=False)
        connection = await connect(self.url)
        try:
            request = build_request("POST", f"{self.url}/chat/completions", self.headers, body)
            return await connection.exchange(request, len) == 200
        finally:
            connection.close()

    def pids(self) -> list[int]:
        """Return the process and all its descendants."""
        return [self.process.pid, *children(self.process.pid)]

    def version(self) -> str | None:
        """Return what it is, where the list of Python packages does not say so."""
        return None

    def folder(self) -> Path:
        """Return where the process runs."""
        return REPOSITORY

    def environment(self) -> dict[str, str]:
        """Return what the process needs in its environment besides ours."""
        return {}

    async def start(self, *cores: int) -> None:
        """Start it and wait until it serves."""
        self.home.mkdir()
        await self.launch(*cores)

    async def launch(self, *cores: int) -> None:
        """Start the process itself, and wait until it serves."""
        began = time.monotonic()
        await self.process.start(self.command(), cores, self.environment(), self.folder())
        await until_ready(self)
        self.ready_seconds = time.monotonic() - began

    async def stop(self) -> None:
        """End the process."""
        await self.process.stop()

    def require_alive(self) -> None:
        """Raise BenchError if the process has ended."""
        self.process.require_alive()


class Gateway(Target):
    """The upstream itself."""

    name = "upstream"

    def __init__(self, home: Path, upstream: int) -> None:
        super().__init__(home, upstream)
        self.headers = {"Authorization": f"Bearer {wire.TOKEN}"}

    def command(self) -> list[str]:
        """It needs no settings."""
        return [sys.executable, "-m", "tests.benchmarks.upstream", str(self.port)]


async def until_ready(target: Target) -> None:
    """Poll until it answers; raise BenchError with its log's end where it does not."""
    why = "no answer"
    deadline = time.monotonic() + target.ready_seconds_max
    while (left := deadline - time.monotonic()) > 0:
        target.process.require_alive()
        try:
            async with asyncio.timeout(left):
                if await target.answers():
                    return
                why = "not ready yet"
        except (OSError, MalformedResponseError) as error:  # a TimeoutError is an OSError
            why = repr(error)
        await asyncio.sleep(POLL_SECONDS)
    raise target.process.failure(f"did not become ready in {target.ready_seconds_max:.0f} s ({why})")
