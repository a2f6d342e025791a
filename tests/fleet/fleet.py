"""The fleet: an issuer in this process, a Redis, and proxies as processes on their hosts."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from quart import Quart, request

from proxy.gateway import Gateway, GatewayOptions, create_gateway
from tests.benchmarks.process import free_port
from tests.cli.processes import PATIENCE, running
from tests.conftest import KEY, SETTINGS
from tests.fleet.hosts import Host
from tests.loopback import serve_on_loopback
from tests.redis_server import RedisServer, redis_server

Counts = dict[str, dict[str, int]]
"""By the proxy's URL: how many answers were good, bad, or never came."""

CREDENTIAL = """
source = "http"
url = "{issuer}/token"
json = {{ appId = "demo", appSecret = "demo-secret" }}
success = {{ path = "code", equals = 0 }}
token = "data.token"
expires = [{{ path = "data.expireTime", as = "epoch_ms" }}]
sharing = "redis"
timeout = 5
"""
SHARED = """
[shared]
redis_url = "redis://{host}:{port}/0"
encryption_key = "{key}"
redis_timeout = 0.3
"""


@dataclass
class Member:
    """One proxy, and where its callers reach it."""

    url: str
    process: asyncio.subprocess.Process


@dataclass
class Fleet:
    """All of it, running."""

    gateway: Gateway
    redis: RedisServer
    members: list[Member]
    fetching_ports: list[int]
    """The caller's port of each fetch, in order."""

    @asynccontextmanager
    async def load(self, seconds: float) -> AsyncIterator[Counts]:
        """Ask all proxies for some seconds, while the block runs and until they are over."""
        counts: Counts = {}
        command = [sys.executable, "-m", "tests.fleet.caller", str(seconds), *(m.url for m in self.members)]
        async with running(*command) as process:
            assert process.stdout is not None
            await process.stdout.readline()  # it begins
            yield counts
            counts.update(json.loads(await process.stdout.read()))

    def fetching_member(self) -> Member:
        """Who sent the newest fetch."""
        port = self.fetching_ports[-1]
        return next(member for member in self.members if port in _local_ports(member.process.pid))


def _local_ports(pid: int) -> Iterator[int]:
    """The ports of a process's own TCP sockets."""
    sockets = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if f"socket:[{fields[9]}]" in sockets:
            yield int(fields[1].rpartition(":")[2], 16)


@asynccontextmanager
async def run_fleet(
    hosts: list[Host], each: int, home: Path, options: GatewayOptions
) -> AsyncIterator[Fleet]:
    """Start issuer, Redis and `each` proxies on every host."""
    app = create_gateway(options)
    ports = _note_fetches(app)
    async with AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(serve_on_loopback(app, "0.0.0.0"))
        store = await stack.enter_async_context(
            redis_server(home, "--bind", "0.0.0.0", "--protected-mode", "no", port=free_port())
        )
        key = os.urandom(32).hex()
        members = []
        for number, host in enumerate(host for host in hosts for _ in range(each)):
            path = home / f"proxy{number}.toml"
            upstream = f"http://{host.gateway}:{issuer.rpartition(':')[2]}"
            more = SHARED.format(host=host.gateway, port=store.port, key=key)
            credential = CREDENTIAL.format(issuer=upstream)
            text = SETTINGS.format(key=KEY, upstream=upstream, credential=credential, options="", more=more)
            path.write_text(text)
            members.append(await stack.enter_async_context(_proxy(host, path)))
        await asyncio.gather(*(_ready(member) for member in members))
        yield Fleet(app.extensions["gateway"], store, members, ports)


@asynccontextmanager
async def _proxy(host: Host, path: Path) -> AsyncIterator[Member]:
    address = f"{host.address}:{free_port()}"
    serve = [sys.executable, "-m", "proxy", "serve", "--config", str(path), "--bind", address]
    async with running(*host.prefix, *serve) as process:
        yield Member(f"http://{address}", process)


async def _ready(member: Member) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
        while not await _is_ready(session, member):
            pass


async def _is_ready(session: aiohttp.ClientSession, member: Member) -> bool:
    try:
        async with session.get(f"{member.url}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        await asyncio.sleep(0.05)
        return False


def _note_fetches(app: Quart) -> list[int]:
    """Remember who asks for a token."""
    ports: list[int] = []

    async def note() -> None:
        if request.path == "/token":
            peer = request.scope["client"]
            ports.append(peer[1] if peer else 0)

    app.before_request(note)
    return ports
