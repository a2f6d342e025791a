"""The running fleet: starts its parts, gives each attack a new credential, and collects callers' records."""

import functools
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import redis.asyncio

from tests.conftest import KEY, require
from tests.fleet.issuer import MEMBER_ADDRESS, SECRET
from tests.fleet.measure import GOOD, Interval, Record, Wait, read_records
from tests.fleet.relays import Mode
from tests.fleet.remote import Child, Remote, running, until
from tests.fleet.starvation import sampled_waits
from tests.fleet.tokens import PREFIX
from tests.fleet.upstream import FORBIDDEN, MEMBER_HEADER, STATIC_TOKEN
from tests.ports import free_port
from tests.redis_server import RedisServer, redis_server

PACE_SECONDS: Final = 0.1
"""Seconds between two requests to the same target."""
DIRECT: Final = "upstream"
STATIC: Final = "static proxy"
CONTROLS: Final = (DIRECT, STATIC)
"""The targets that need no fetched token; see the docstring of the package."""
SENTINEL_MASTER: Final = "fleet"
_SYNC_AT_ONCE: Final = ("--repl-diskless-sync-delay", "0")
"""A master waits five seconds for more replicas by default."""

_COMMON = """
[access]
[[access.keys]]
name = "tester"
key = "{key}"

[routes]
default = "chat"

[logs]
level = "debug"
format = "json"

[upstreams.chat]
base_url = "{upstream}/v1"
credential = "corp"
headers = {{ "{header}" = "{name}" }}
"""
_STATIC = """
[credentials.corp]
source = "static"
value = "{token}"
"""
_FETCHED = """
[credentials.corp]
source = "http"
url = "{issuer}/token"
proxy = "http://127.0.0.1:{way}"
json = {{ appId = "demo", appSecret = "{secret}" }}
success = {{ path = "code", equals = 0 }}
token = "data.token"
expires = [{{ path = "data.expireTime", as = "epoch_ms" }}]
sharing = "redis"
timeout = 10

[shared]
redis_url = "{redis}"
{sentinels}
encryption_key = "{sealing_key}"
"""


@dataclass
class Member:
    """One proxy. Member 0 is the control with a static token."""

    number: int
    name: str
    url: str
    child: Child
    settings: Path
    issuer_way: str = ""
    """The name of its relay to the issuer."""
    redis_way: str = ""
    """The name of its relay to Redis."""


@dataclass
class Load:
    """The result of some time under load."""

    records: list[Record] = field(default_factory=list)
    stalls: list[Interval] = field(default_factory=list)
    """When the event loop of a helper stalled."""
    waits: dict[str, list[Wait]] = field(default_factory=dict)
    """How long each member waited for a processor."""


@dataclass
class Fleet:
    """A running fleet with all its parts."""

    home: Path
    issuer: Remote
    upstream: Remote
    relays: Remote
    callers: Remote
    redis: RedisServer
    control: Member
    members: list[Member]
    upstream_url: str
    issuer_url: str
    sealing_key: str
    sentinel_port: int = 0
    """The port of the Sentinel that watches Redis; 0 if there is none."""
    epoch: int = 0
    """The number of the client secret in use."""
    ways: dict[str, int] = field(default_factory=dict)
    """The ports of the relays."""
    replica: RedisServer | None = None
    """The replica that Sentinel promotes."""
    _searched: dict[Path, int] = field(default_factory=dict)
    """How far each log has been searched for secrets."""

    # --- the members

    async def use_new_secret(self) -> None:
        """Give all members another client secret, and with it an empty cached source."""
        self.epoch += 1
        for member in self.members:
            self.write_settings(member)
            member.child.send_signal(signal.SIGHUP)

    def write_settings(self, member: Member) -> None:
        """Write a member's settings file."""
        text = _COMMON.format(key=KEY, upstream=self.upstream_url, header=MEMBER_HEADER, name=member.name)
        if member is self.control:
            text += _STATIC.format(token=STATIC_TOKEN)
        else:
            sentinels = f'sentinels = ["127.0.0.1:{self.sentinel_port}"]' if self.sentinel_port else ""
            port = self.ways.get(member.redis_way, 0)
            url = f"redis://{SENTINEL_MASTER}/0" if self.sentinel_port else f"redis://127.0.0.1:{port}/0"
            text += _FETCHED.format(
                issuer=self.issuer_url,
                way=self.ways[member.issuer_way],
                secret=f"{SECRET}{self.epoch}",
                redis=url,
                sentinels=sentinels,
                sealing_key=self.sealing_key,
            )
        member.settings.write_text(text)

    async def start_members(self, members: Sequence[Member]) -> None:
        """Start some members that are not running, and wait until they listen."""
        for member in members:
            self.write_settings(member)
            await member.child.start()
        async with aiohttp.ClientSession() as session:
            for member in members:
                await until(functools.partial(_listens, session, member), f"{member.name} listens")

    async def stop_members(self) -> None:
        """Kill all members except the control."""
        for member in self.members:
            await member.child.stop()

    async def settled(self) -> None:
        """Wait until each member has sent a token of the newest secret to the upstream."""
        names = {member.name for member in self.members if member.child.is_running}

        async def all_have() -> bool:
            seen = await self.upstream.call("seen")
            return all(seen.get(name) == self.epoch for name in names)

        await until(all_have, "every member uses a token of the newest secret")

    # --- the issuer

    async def fetches(self) -> list[dict[str, Any]]:
        """Return the fetches with the newest secret so far, in order."""
        found: list[dict[str, Any]] = await self.issuer.call("fetches", epoch=self.epoch)
        return found

    async def next_holder(self, seconds: float = 30.0) -> Member:
        """Wait for the next fetch to start, and return the member that sends it."""
        before = len(await self.fetches())

        async def has_begun() -> bool:
            return len(await self.fetches()) > before

        await until(has_begun, "another fetch begins", seconds)
        number = (await self.fetches())[before]["member"]
        return next(member for member in self.members if member.number == number)

    async def no_fetch_runs(self) -> None:
        """Wait until every fetch has been answered."""

        async def all_answered() -> bool:
            return all(fetch["ended"] for fetch in await self.fetches())

        await until(all_answered, "every fetch is answered")

    # --- the ways

    async def switch_ways(self, ways: Sequence[str], mode: Mode, delay: float = 0.0) -> None:
        """Switch the mode of relays."""
        await self.relays.call("switch", names=list(ways), mode=mode, delay=delay)

    @property
    def issuer_ways(self) -> list[str]:
        """The relays to the issuer, of all members."""
        return [member.issuer_way for member in self.members]

    @property
    def redis_ways(self) -> list[str]:
        """The relays to Redis, of all members."""
        return [member.redis_way for member in self.members]

    async def mend_ways(self) -> None:
        """Let all relays forward again."""
        await self.switch_ways(list(self.ways), Mode.FORWARD)

    async def kill_master(self) -> None:
        """Kill the Redis that is the master for Sentinel at this time."""
        assert self.replica is not None
        async with redis.asyncio.Redis(port=self.sentinel_port) as client:
            _, port = await client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SENTINEL_MASTER)  # type: ignore[no-untyped-call]
        servers = (self.redis, self.replica)
        master = next(server for server in servers if server.port == int(port))
        await master.stop()

    # --- the callers

    @asynccontextmanager
    async def load(self) -> AsyncIterator[Load]:
        """Send requests to all members and controls during the block; the result is complete after it."""
        load = Load()
        helpers = (self.issuer, self.upstream, self.relays, self.callers)
        for helper in helpers:
            await helper.call("stalls")  # of the time before
        targets = {member.name: [member.url, KEY] for member in [self.control, *self.members]}
        targets[DIRECT] = [self.upstream_url, STATIC_TOKEN]
        await self.callers.call("start", kind=GOOD, targets=targets, pace=PACE_SECONDS)
        path = self.home / "records.jsonl"
        pids = {member.name: member.child.pid for member in self.members if member.child.is_running}
        try:
            async with sampled_waits(pids) as load.waits:
                yield load
        finally:
            await self.callers.call("stop", path=str(path))
        load.records = read_records(path.read_text())
        load.stalls = [(begin, end) for one in helpers for begin, end in await one.call("stalls")]

    async def storm(self, pace: float, members: Sequence[Member] | None = None) -> None:
        """Request the forbidden model from members as well, until `calm` or the end of the load."""
        targets = {member.name: [member.url, KEY] for member in members or self.members}
        await self.callers.call("start", kind=FORBIDDEN, targets=targets, pace=pace)

    async def calm(self) -> None:
        """Stop requesting the forbidden model."""
        await self.callers.call("calm", kind=FORBIDDEN)

    # --- the logs

    def secrets_in_logs(self) -> list[str]:
        """Return the log lines of all processes since the last search that contain a secret."""
        canaries = [PREFIX, SECRET, KEY, STATIC_TOKEN, self.sealing_key]
        found = []
        for path in sorted(self.home.rglob("*.log")):
            with path.open(errors="replace") as log:
                log.seek(self._searched.get(path, 0))
                text = log.read()
                self._searched[path] = log.tell()
            lines = text.splitlines() if any(secret in text for secret in canaries) else []
            found += [
                f"a secret in {path.name}: {line[:300]}"
                for line in lines
                if any(secret in line for secret in canaries)
            ]
        return found


async def _listens(session: aiohttp.ClientSession, member: Member) -> bool:
    assert member.child.is_running, f"{member.name} ended:\n{member.child.log.read_text()[-2000:]}"
    try:
        async with session.get(f"{member.url}/livez") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


@asynccontextmanager
async def run_fleet(count: int, home: Path, *, sentinel: bool = False) -> AsyncIterator[Fleet]:
    """Start everything but the members.

    Args:
        count: How many members there are.
        home: A folder for settings and logs.
        sentinel: Whether the members find Redis through a sentinel, instead of through relays.
    """
    require("redis-server", found=shutil.which("redis-server") is not None)
    async with AsyncExitStack() as stack:
        helpers = [Remote(module, home) for module in ("issuer", "upstream", "relays", "callers")]
        for helper in helpers:
            await stack.enter_async_context(running(helper))
        issuer, upstream, relays, callers = helpers
        (home / "redis").mkdir(exist_ok=True)
        port = free_port()
        store = await stack.enter_async_context(redis_server(home / "redis", *_SYNC_AT_ONCE, port=port))
        issuer_port, upstream_port = await issuer.call("address"), await upstream.call("address")
        members = [_member(number, home) for number in range(count + 1)]
        fleet = Fleet(
            home, issuer, upstream, relays, callers, store, members[0], members[1:],
            f"http://127.0.0.1:{upstream_port}", f"http://127.0.0.1:{issuer_port}", os.urandom(32).hex(),
        )  # fmt: skip
        for member in fleet.members:
            source = f"{MEMBER_ADDRESS}{member.number}"
            fleet.ways[member.issuer_way] = await relays.call(
                "open", name=member.issuer_way, port=issuer_port, source=source
            )
            if not sentinel:
                fleet.ways[member.redis_way] = await relays.call("open", name=member.redis_way, port=port)
        for member in members:
            stack.push_async_callback(member.child.stop)
        if sentinel:
            await stack.enter_async_context(_sentinel(fleet))
        await fleet.start_members([fleet.control])
        yield fleet


def _member(number: int, home: Path) -> Member:
    name = f"member{number}" if number else STATIC
    address, settings = f"127.0.0.1:{free_port()}", home / f"proxy{number}.toml"
    serve = (sys.executable, "-m", "proxy", "serve", "--config", str(settings), "--bind", address)
    child = Child(name, serve, home / f"proxy{number}.log")
    return Member(number, name, f"http://{address}", child, settings, f"issuer of {name}", f"Redis of {name}")


@asynccontextmanager
async def replica_of(fleet: Fleet) -> AsyncIterator[RedisServer]:
    """Run a second Redis that replicates the first one, and wait until it is in sync."""
    home = fleet.home / "replica"
    home.mkdir(exist_ok=True)
    follow = ("--replicaof", "127.0.0.1", str(fleet.redis.port), *_SYNC_AT_ONCE)
    async with redis_server(home, *follow, port=free_port()) as replica:
        async with redis.asyncio.Redis.from_url(replica.url) as client:

            async def is_in_step() -> bool:
                return bool((await client.info("replication"))["master_link_status"] == "up")

            await until(is_in_step, "the replica is in step")
        yield replica


async def promote(replica: RedisServer) -> None:
    """Let a replica accept writes."""
    async with redis.asyncio.Redis.from_url(replica.url) as client:
        await client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]


@asynccontextmanager
async def _sentinel(fleet: Fleet) -> AsyncIterator[None]:
    """Run a replica, and a Sentinel that promotes it when Redis is down."""
    fleet.sentinel_port = free_port()
    path = fleet.home / "sentinel.conf"
    path.write_text(
        f"port {fleet.sentinel_port}\nbind 127.0.0.1\ndir {fleet.home}\n"
        f"sentinel monitor {SENTINEL_MASTER} 127.0.0.1 {fleet.redis.port} 1\n"
        f"sentinel down-after-milliseconds {SENTINEL_MASTER} 500\n"
        f"sentinel failover-timeout {SENTINEL_MASTER} 3000\n"
    )
    child = Child("sentinel", ("redis-server", str(path), "--sentinel"), fleet.home / "sentinel.log")
    async with replica_of(fleet) as fleet.replica, running(child):
        async with redis.asyncio.Redis(port=fleet.sentinel_port) as client:

            async def knows_replica() -> bool:
                try:
                    return bool(await client.execute_command("SENTINEL", "REPLICAS", SENTINEL_MASTER))  # type: ignore[no-untyped-call]
                except redis.exceptions.ConnectionError:
                    return False

            await until(knows_replica, "the sentinel knows the replica")
        yield
