"""A real failover: the master dies, Sentinel promotes another node, and the fleet continues."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from proxy.credentials.sharing import FlightContext
from proxy.credentials.sources import TokenFetchError
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


async def test_a_failover_behind_one_address_needs_no_restart(tmp_path: Path) -> None:
    """The open connections still lead to the previous master, which is a replica now and runs on."""
    ports = free_port(), free_port()
    homes = [tmp_path / name for name in ("one", "other")]
    for home in homes:
        home.mkdir()
    issuer, master = FakeIssuer(), ports[0]

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection("127.0.0.1", master)
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, ahead))
            group.create_task(copy(behind, writer))

    address = await asyncio.start_server(forward, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{address.sockets[0].getsockname()[1]}/0"
    async with (
        redis_server(homes[0], port=ports[0]) as first,
        redis_server(homes[1], port=ports[1]),
        address,
        fleet_of(2, url, issuer, required=True, lease_seconds=2.0) as members,
    ):
        assert len({*await tokens_of(members)}) == 1
        master = ports[1]
        async with Redis.from_url(first.url) as client:
            await client.replicaof("127.0.0.1", str(master))
        for member in members:  # the first flight of each finds out
            with pytest.raises(TokenFetchError, match="cannot be reached"):
                await renewed([member], issuer)
            member.sharing._redis_pause_until = -1.0  # the pause is over
        assert len({*await renewed(members, issuer)}) == 1


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy bytes until either side closes."""
    with contextlib.suppress(ConnectionError):
        while received := await reader.read(4096):
            writer.write(received)
    writer.close()


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
