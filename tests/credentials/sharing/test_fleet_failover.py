"""A real failover: the master dies, Sentinel promotes another node, and the fleet continues."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from redis.asyncio import Redis

from proxy.credentials.sharing import FlightContext
from tests.credentials.fakes import FakeIssuer
from tests.credentials.sharing.fleet_members import Member, fleet_of, tokens_of
from tests.pace import PATIENCE, paced
from tests.ports import free_port
from tests.redis_server import SENTINEL_MASTER, redis_server, sentinel


async def test_a_failover_causes_no_errors(tmp_path: Path) -> None:
    master, replica, watcher = free_port(), free_port(), free_port()
    homes = [tmp_path / name for name in ("master", "replica", "sentinel")]
    for home in homes:
        home.mkdir()
    issuer = FakeIssuer()
    async with (
        redis_server(homes[0], port=master) as first,
        redis_server(homes[1], "--replicaof", "127.0.0.1", str(master), port=replica),
        sentinel(master, watcher, homes[2], failover_ms=2000),
        fleet_of(
            3,
            f"redis://{SENTINEL_MASTER}/0",
            issuer,
            settings={"sentinels": [f"127.0.0.1:{watcher}"], "redis_timeout": paced(0.5)},
            lease_seconds=2.0,
        ) as members,
    ):
        assert len({*await tokens_of(members)}) == 1
        await knows_its_replica(watcher)
        await first.stop()
        await renewed(members, issuer)  # during the failover, every member gets a token
        await is_master(watcher, replica)
        for member in members:
            member.sharing._redis_pause_until = -1.0  # the pause is over
        before = issuer.fetches
        assert len({*await renewed(members, issuer)}) == 1  # one fetch for all members again
        assert issuer.fetches == before + 1


async def renewed(members: list[Member], issuer: FakeIssuer) -> list[str]:
    """Replace the token of each member, as after a rejection, and return the new tokens."""
    held = [await member.machine.get() for member in members]
    brought = await asyncio.gather(
        *(
            member.sharing.obtain(
                issuer.fetch, FlightContext(one.generation, rejected=frozenset({one.digest}))
            )
            for member, one in zip(members, held, strict=True)
        )
    )
    for member, token in zip(members, brought, strict=True):
        member.machine._flights.current = token
    return [token.secret.reveal() for token in brought]


async def knows_its_replica(watcher: int) -> None:
    """Wait until Sentinel has found the replica."""
    async with Redis(port=watcher, decode_responses=True) as client:

        async def found() -> bool:
            replicas = await client.sentinel_slaves(SENTINEL_MASTER)
            return bool(replicas) and not replicas[0]["is_disconnected"]

        await until_so(found)


async def is_master(watcher: int, port: int) -> None:
    """Wait until Sentinel calls this node the master, and the node agrees."""
    async with (
        Redis(port=watcher, decode_responses=True) as client,
        Redis(port=port, decode_responses=True) as node,
    ):

        async def promoted() -> bool:
            known, own = await client.sentinel_master(SENTINEL_MASTER), await node.info("replication")
            assert isinstance(known, dict)
            return bool(known["port"] == port and own["role"] == "master")

        await until_so(promoted)


async def until_so(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            pass
