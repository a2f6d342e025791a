"""Where Redis is: user names, TLS, Sentinel."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.redis_connection import StoreUnavailable
from tests.conftest import require
from tests.pace import PATIENCE, paced
from tests.ports import free_port
from tests.redis_server import redis_server
from tests.test_redis_connection import connected


async def test_a_right_password_is_accepted_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    rules = ("--requirepass", "other", "--user", "proxy", "on", ">pa:ss", "~llm-token-proxy:*", "+@all")
    port = free_port()
    async with redis_server(tmp_path, *rules, port=port):
        async with connected(f"redis://proxy:pa%3Ass@127.0.0.1:{port}/0") as redis:
            assert await redis.run("PING")
        async with connected(f"redis://proxy:wrong@127.0.0.1:{port}/0") as redis:
            with pytest.raises(StoreUnavailable, match="AuthenticationError"):
                await redis.run("PING")


def make_certificate(home: Path) -> tuple[Path, Path]:
    """Create a certificate for 127.0.0.1, and its key."""
    require("openssl", found=shutil.which("openssl") is not None)
    cert, key = home / "cert.pem", home / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2",
         "-out", cert, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


async def test_tls_is_verified_against_the_given_certificates(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    port = free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key))
    async with redis_server(tmp_path, *options, "--tls-auth-clients", "no"):
        url = f"rediss://127.0.0.1:{port}/0"
        async with connected(url, redis_ca_file=str(cert)) as redis:
            assert await redis.run("PING")
        async with connected(url) as redis:
            with pytest.raises(StoreUnavailable, match="its certificate is self-signed"):
                await redis.run("PING")


async def test_sentinel_names_the_master(tmp_path: Path) -> None:
    port, watcher = free_port(), free_port()
    async with redis_server(tmp_path, port=port), sentinel_of(port, watcher, tmp_path):
        options = {"sentinels": [f"127.0.0.1:{watcher}"], "redis_timeout": paced(2.0)}
        async with connected("redis://tokens/0", **options) as redis:
            assert await redis.run("PING")
        async with connected("redis://unknown/0", **options) as redis:
            with pytest.raises(StoreUnavailable, match="MasterNotFoundError"):
                await redis.run("PING")


@asynccontextmanager
async def sentinel_of(master: int, port: int, home: Path) -> AsyncIterator[None]:
    """Run a Sentinel that watches one master with the name `tokens`."""
    config = home / "sentinel.conf"
    config.write_text(f"port {port}\ndir {home}\nsentinel monitor tokens 127.0.0.1 {master} 1\n")
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        "redis-server", str(config), "--sentinel", stdout=quiet, stderr=quiet
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while not await listens(port):
                pass
        yield
    finally:
        process.kill()
        await process.wait()


async def listens(port: int) -> bool:
    """Return whether a server accepts connections there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        await asyncio.sleep(0)
        return False
    writer.close()
    return True
