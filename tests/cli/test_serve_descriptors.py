"""Connections that their callers have closed use no descriptors."""

import asyncio
import contextlib
import json
import re
import shlex
import sys
from pathlib import Path

from tests.cli.processes import read_until, running
from tests.loopback import until
from tests.pace import PATIENCE, paced
from tests.raw_caller import raw_caller

CALLS = 2000
DESCRIPTORS = 256


async def call(port: int) -> bytes:
    """Send one request on a new connection and close it; return the status line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        status = await reader.readline()
        await reader.readuntil(b"ok\n")
    finally:
        writer.close()
    return status


def descriptors(pid: int) -> int:
    """Return the number of open descriptors of a process."""
    return len([*Path(f"/proc/{pid}/fd").iterdir()])


async def test_two_thousand_callers_in_a_row_are_served_with_few_descriptors() -> None:
    serve = shlex.join([sys.executable, "-m", "proxy", "serve", "--bind", "127.0.0.1:0"])
    async with running("sh", "-c", f"ulimit -n {DESCRIPTORS}; exec {serve}") as service:
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", await read_until(service, "curl -N"))[0])
        await call(port)
        before = descriptors(service.pid)
        assert {await call(port) for _ in range(CALLS)} == {b"HTTP/1.1 200 OK\r\n"}
        await until(lambda: descriptors(service.pid) <= before, seconds=paced(5.0))


async def test_a_service_without_descriptors_keeps_its_streams_and_recovers() -> None:
    serve = shlex.join([sys.executable, "-m", "proxy", "serve", "--bind", "127.0.0.1:0"])
    async with running("sh", "-c", f"ulimit -n {DESCRIPTORS}; exec {serve}") as service:
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", await read_until(service, "curl -N"))[0])
        async with raw_caller(f"http://127.0.0.1:{port}") as held:
            question = {"role": "user", "content": "x " * 30}
            body = json.dumps({"model": "m", "stream": True, "messages": [question]})
            await held.send("POST", "/v1/chat/completions", body=body.encode(), key="sk-local")
            answer = await held.answer()
            writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(2 * DESCRIPTORS)]
            assert (await held.body(answer)).endswith(b"data: [DONE]\n\n")
            for writer in writers:
                writer.close()
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    if await call(port) == b"HTTP/1.1 200 OK\r\n":
                        break
