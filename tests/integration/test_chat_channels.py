"""Many open channels on one worker: what each costs, and that all of them are heard.

A handful here; `PROXY_TEST_CHANNELS=2000` opens as many as one worker shall carry.
"""

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cli.processes import running
from tests.conftest import KEY, SETTINGS, STATIC
from tests.integration.test_chat_fleet import SERVICE, address_of
from tests.pace import PATIENCE
from tests.redis_server import redis_server

CHANNELS = int(os.environ.get("PROXY_TEST_CHANNELS", "100"))
FIRST = 50
"""Streams that are opened before the measurement, so that everything loaded once is loaded."""
KIB_EACH = 60
AT_ONCE = 50
SHARED = """
[shared]
redis_url = "{redis}"
encryption_key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
redis_timeout = 5
"""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def resident_kib(process: asyncio.subprocess.Process) -> int:
    """Return the memory of a process as the kernel reports it."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


async def open_channels(address: str, count: int) -> list[Connection]:
    """Open this many visitors, each with a separate channel."""
    host, port = address.removeprefix("http://").split(":")
    places = asyncio.Semaphore(AT_ONCE)

    async def one() -> Connection:
        async with places, asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
            target = f"/chat/stream?channel={uuid4()}&last_event_id=0-0"
            writer.write(f"GET {target} HTTP/1.1\r\nHost: chat.localhost\r\n\r\n".encode())
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b": open\n\n\r\n")
            return reader, writer

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(count)]
    return [task.result() for task in tasks]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells no process's memory")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("broker", ["memory", "redis"])
async def test_an_open_channel_costs_little(tmp_path: Path, broker: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * CHANNELS + 500)), hard))
    path = tmp_path / "proxy.toml"
    async with redis_server(tmp_path) as server:
        more = '[chat]\nsecret = "s"\n' + (SHARED.format(redis=server.url) if broker == "redis" else "")
        path.write_text(
            SETTINGS.format(key=KEY, upstream="http://127.0.0.1:9", credential=STATIC, options="", more=more)
        )
        async with running(sys.executable, "-c", SERVICE, str(path)) as process:
            address = await address_of(process)
            opened = await open_channels(address, FIRST)
            before = resident_kib(process)
            opened += await open_channels(address, CHANNELS)
            each = (resident_kib(process) - before) / CHANNELS
            print(f"{CHANNELS} channels, {broker}: {each:.1f} KiB each")  # noqa: T201  seen with -s
            process.send_signal(signal.SIGINT)  # without the readiness delay
            async with asyncio.timeout(PATIENCE):
                ends = [await reader.read() for reader, _ in opened]  # each stream ends
                assert await process.wait() == 0
            for _, writer in opened:
                writer.close()
    assert {*ends} == {b"0\r\n\r\n"}
    assert each < KIB_EACH
