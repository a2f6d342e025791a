"""Closed connections use no descriptors, and silent ones leave enough for requests."""

import asyncio
import contextlib
import json
import re
import resource
import shlex
import sys
from pathlib import Path

from tests.cli.processes import read_until, running
from tests.loopback import until
from tests.pace import PATIENCE, paced
from tests.raw_caller import raw_caller

CALLS = 2000
DESCRIPTORS = 256
FEW = 640
"""Enough for 160 connections."""


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


async def complete(port: int) -> int:
    """Send one chat completion on a new connection; return the status of its response, 0 without one."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]})
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        async with raw_caller(f"http://127.0.0.1:{port}") as caller:
            await caller.send("POST", "/v1/chat/completions", body=body.encode(), key="sk-local")
            answer = await caller.answer()
            await caller.body(answer)
            return answer.status
    return 0


async def test_silent_connections_beyond_the_limit_of_open_files_keep_nobody_out() -> None:
    serve = shlex.join([sys.executable, "-m", "proxy", "serve", "--bind", "127.0.0.1:0"])
    async with running("sh", "-c", f"ulimit -n {FEW}; exec {serve} 2>&1") as service:
        text = await read_until(service, r"(?s)(?=.*connections_limited)(?=.*curl -N)")
        assert '"max_connections":10000,"in_effect":160,"open_files_max":640' in text
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", text)[0])
        writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(FEW + 100)]
        async with asyncio.timeout(PATIENCE):
            while await complete(port) != 200:  # at first, none has waited long enough to give way
                assert descriptors(service.pid) < FEW
            assert [await complete(port) for _ in range(20)] == [200] * 20
        assert descriptors(service.pid) < FEW
        for writer in writers:
            writer.close()


async def test_the_limit_of_open_files_is_raised_for_the_configured_connections() -> None:
    serve = shlex.join([sys.executable, "-m", "proxy", "serve", "--bind", "127.0.0.1:0"])
    shell = f"ulimit -Sn {FEW}; ulimit -Hn {4 * FEW}; exec {serve} 2>&1"
    async with running("sh", "-c", shell, PROXY__LIMITS__MAX_CONNECTIONS="1000") as service:
        text = await read_until(service, r"(?s)(?=.*default_keys)(?=.*curl -N)")
        assert "connections_limited" not in text
        assert resource.prlimit(service.pid, resource.RLIMIT_NOFILE) == (2320, 4 * FEW)


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
