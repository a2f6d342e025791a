"""A real redis-server in a separate folder, which a test can pause, empty, kill and start again."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import redis.asyncio

from tests.conftest import require
from tests.pace import PATIENCE

ABSENT: Final = -2
"""What Redis calls the remaining time of a key that has expired meanwhile."""
SENTINEL_MASTER: Final = "tokens"
"""The name by which `sentinel` knows the master."""


class RedisServer:
    """One server, on a Unix socket unless its options say otherwise.

    Args:
        home: The folder of this server.
        options: Further options of redis-server.
        port: A TCP port in addition to the socket; none by default.
    """

    def __init__(self, home: Path, *options: str, port: int = 0) -> None:
        self.socket = home / "redis.sock"
        self.port = port
        self.url = f"unix://{self.socket}"
        self._command = [
            *("redis-server", "--port", str(port), "--unixsocket", str(self.socket), "--dir", str(home)),
            *("--save", "", "--appendonly", "no", "--loglevel", "warning", *options),
        ]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the server, and wait until it answers."""
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(*self._command, stdout=quiet, stderr=quiet)
        async with asyncio.timeout(PATIENCE):
            while not await self._answers():
                assert self._process.returncode is None, "redis-server did not start"

    async def stop(self) -> None:
        """Kill the server."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def pause(self) -> None:
        """Stop the server: connections stay open, and it does not answer."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the server."""
        self._signal(signal.SIGCONT)

    async def dump(self) -> dict[bytes, bytes]:
        """Return all keys and values."""
        async with redis.asyncio.Redis.from_url(self.url) as client:
            found: dict[bytes, bytes] = {}
            for key in await client.keys("*"):
                value = await client.get(key)
                assert isinstance(key, bytes)
                if value is None:
                    continue  # it has expired meanwhile
                assert isinstance(value, bytes)
                found[key] = value
            return found

    async def lifetimes(self, pattern: str = "*") -> dict[bytes, float]:
        """Return the remaining seconds of each key; below 0 for a key without an end."""
        async with redis.asyncio.Redis.from_url(self.url) as client:
            keys = [key for key in await client.keys(pattern) if isinstance(key, bytes)]
            left = {key: await client.pttl(key) for key in keys}
            return {key: ms / 1000 for key, ms in left.items() if ms != ABSENT}

    async def put(self, key: bytes, value: bytes) -> None:
        """Overwrite a key."""
        async with redis.asyncio.Redis.from_url(self.url) as client:
            await client.set(key, value)

    async def empty(self) -> None:
        """Delete everything."""
        async with redis.asyncio.Redis.from_url(self.url) as client:
            await client.flushall()

    async def delete(self, pattern: str) -> None:
        """Delete some keys."""
        async with redis.asyncio.Redis.from_url(self.url) as client:
            for key in await client.keys(pattern):
                await client.delete(key)

    async def persist(self, pattern: str) -> None:
        """Let some keys never expire."""
        async with redis.asyncio.Redis.from_url(self.url) as client:
            for key in await client.keys(pattern):
                await client.persist(key)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            await asyncio.sleep(0)
            return False
        writer.close()
        return True


@asynccontextmanager
async def redis_server(home: Path, *options: str, port: int = 0) -> AsyncIterator[RedisServer]:
    """Serve until the end of the block."""
    require("redis-server", found=shutil.which("redis-server") is not None)
    server = RedisServer(home, *options, port=port)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def sentinel(
    master: int, port: int, home: Path, *, failover_ms: int | None = None
) -> AsyncIterator[None]:
    """Run a Sentinel that watches a master until the end of the block.

    Args:
        master: The port of the master.
        port: Its own port.
        home: Its folder.
        failover_ms: The time limit of a failover, which then begins 300 ms after the death of the master.
    """
    config = home / "sentinel.conf"
    lines = [f"port {port}", f"dir {home}", f"sentinel monitor {SENTINEL_MASTER} 127.0.0.1 {master} 1"]
    if failover_ms is not None:
        lines += [
            f"sentinel down-after-milliseconds {SENTINEL_MASTER} 300",
            f"sentinel failover-timeout {SENTINEL_MASTER} {failover_ms}",
        ]
    config.write_text("\n".join([*lines, ""]))
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        "redis-server", str(config), "--sentinel", stdout=quiet, stderr=quiet
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while not await _listens(port):
                pass
        yield
    finally:
        process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        await asyncio.sleep(0)
        return False
    writer.close()
    return True
