"""How the client reaches Redis: user names, TLS, Sentinel."""

from pathlib import Path

import pytest

from proxy.redis_connection import StoreUnavailable
from tests.pace import paced
from tests.ports import free_port
from tests.redis_server import redis_server, sentinel
from tests.test_redis_connection import connected
from tests.tls_servers import make_certificate


async def test_a_right_password_is_accepted_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    rules = ("--requirepass", "other", "--user", "proxy", "on", ">pa:ss", "~llm-token-proxy:*", "+@all")
    port = free_port()
    async with redis_server(tmp_path, *rules, port=port):
        async with connected(f"redis://proxy:pa%3Ass@127.0.0.1:{port}/0") as redis:
            assert await redis.run("PING")
        async with connected(f"redis://proxy:wrong@127.0.0.1:{port}/0") as redis:
            with pytest.raises(StoreUnavailable, match="AuthenticationError"):
                await redis.run("PING")


async def test_tls_is_verified_against_the_given_certificates(tmp_path: Path) -> None:
    pem = str(make_certificate(tmp_path))
    port = free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", pem)
    async with redis_server(tmp_path, *options, "--tls-auth-clients", "no"):
        url = f"rediss://127.0.0.1:{port}/0"
        async with connected(url, redis_ca_file=pem) as redis:
            assert await redis.run("PING")
        async with connected(url) as redis:
            with pytest.raises(StoreUnavailable, match="its certificate is self-signed"):
                await redis.run("PING")


async def test_sentinel_names_the_master(tmp_path: Path) -> None:
    port, watcher = free_port(), free_port()
    async with redis_server(tmp_path, port=port), sentinel(port, watcher, tmp_path):
        options = {"sentinels": [f"127.0.0.1:{watcher}"], "redis_timeout": paced(2.0)}
        async with connected("redis://tokens/0", **options) as redis:
            assert await redis.run("PING")
        async with connected("redis://unknown/0", **options) as redis:
            with pytest.raises(StoreUnavailable, match="MasterNotFoundError"):
                await redis.run("PING")
