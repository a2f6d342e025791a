"""A service of two worker processes, and its log."""

import asyncio
import contextlib
import json
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cli.processes import ROOT, running
from tests.conftest import KEY, SETTINGS, STATIC
from tests.pace import PATIENCE
from tests.raw_caller import raw_caller

SERVER = "readiness_delay = 0\ngraceful_timeout = 60\n"


@dataclass
class Workers:
    """A service of two worker processes."""

    process: asyncio.subprocess.Process
    url: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The address of the service."""
        return int(self.url.rpartition(":")[2])

    @property
    def pids(self) -> dict[int, int]:
        """The newest process of each worker."""
        return {line["worker"]: line["pid"] for line in self.log if line["event"] == "worker_ready"}

    async def read(self, event: str, times: int = 1) -> None:
        """Read the log until an event has occurred this many more times."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while times:
                line = await self.process.stdout.readline()
                assert line, self.log
                self.log.append(json.loads(line))
                times -= self.log[-1]["event"] == event

    async def status(self, key: str = KEY) -> int:
        """Send a request on a new connection, and return its status."""
        async with raw_caller(self.url) as caller:
            await caller.send("POST", "/v1/chat/completions", body=b"{}", key=key)
            answer = await caller.answer()
            body = await caller.body(answer)
            assert answer.status < 500, body
            return answer.status


def write_files(
    folder: Path,
    upstream: str,
    credential: str = STATIC,
    key: str = KEY,
    more: str = "",
    options: str = "",
) -> None:
    """Write the settings of a service."""
    text = SETTINGS.format(key=key, upstream=upstream, credential=credential, options=options, more=more)
    (folder / "proxy.toml").write_text(text)
    (folder / "hypercorn.toml").write_text(SERVER)


@asynccontextmanager
async def two_workers_starting(folder: Path, *options: str, **environment: str) -> AsyncIterator[Workers]:
    """Serve the files of `write_files`; the block starts when the port is open."""
    serve = [sys.executable, "-m", "proxy", "serve", "--config", "proxy.toml"]
    command = shlex.join([*serve, "--bind", "127.0.0.1:0", "--workers", "2", *options])
    shell = f"cd {shlex.quote(str(folder))}; exec {command} 2>&1"
    async with running("sh", "-c", shell, PYTHONPATH=str(ROOT), **environment) as process:
        service = Workers(process)
        await service.read("serving")
        service.url = service.log[-1]["addresses"][0]
        yield service


@asynccontextmanager
async def two_workers(folder: Path, *options: str, **environment: str) -> AsyncIterator[Workers]:
    """Serve the files of `write_files`; the block starts when both workers accept connections."""
    async with two_workers_starting(folder, *options, **environment) as service:
        await service.read("worker_ready", 2)
        yield service


def connections(pid: int) -> int:
    """Return the number of open sockets of a process."""
    count = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += str(path.readlink()).startswith("socket:")
    return count
