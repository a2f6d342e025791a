"""Run commands as processes, read their output line by line, and end them with the test."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.pace import PATIENCE as PATIENCE

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def running(*command: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run one of our commands; at the end kill it if it is still running, and remove its temporary files."""
    temporary = tempfile.mkdtemp(prefix="command-")
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": temporary, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):  # It may have just ended.
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()  # wait() alone hangs if output that nobody read has paused the pipe
        process._transport.close()  # type: ignore[attr-defined]  # otherwise it warns after the loop has ended
        shutil.rmtree(temporary, ignore_errors=True)


async def read_until(process: asyncio.subprocess.Process, pattern: str) -> str:
    """Read lines of the output until one matches, and return them."""
    assert process.stdout is not None
    text = ""
    async with asyncio.timeout(PATIENCE):
        while not re.search(pattern, text):
            line = await process.stdout.readline()
            assert line, f"ended early: {text}"
            text += line.decode()
    return text
