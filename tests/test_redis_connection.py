"""The shared connection to Redis: bounded waits, no command twice, and a reconnection after a loss."""

import asyncio
import base64
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from limits import parse

from proxy.access.counting import Counting
from proxy.redis_connection import (
    CONCURRENT_COMMANDS_MAX,
    RedisConnection,
    StoreCorrupt,
    StoreUnavailable,
    expect,
    expect_list,
)
from proxy.settings import Shared
from tests.pace import PATIENCE, paced
from tests.redis_server import RedisServer, redis_server

KEY = base64.b64encode(secrets.token_bytes(32)).decode()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A running redis-server."""
    async with redis_server(tmp_path) as server:
        yield server


@asynccontextmanager
async def connected(url: str, **more: Any) -> AsyncIterator[RedisConnection]:
    """Open a connection."""
    connection = RedisConnection(
        Shared.model_validate({"redis_url": url, "encryption_key": KEY, "redis_timeout": paced(5.0), **more})
    )
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_command_and_a_script_return_the_reply_of_redis(store: RedisServer) -> None:
    async with connected(store.url) as redis:
        assert await redis.run("INCRBY", "counter", 7) == 7
        assert await redis.run_script("return {KEYS[1], ARGV[1]}", ["a"], "b") == [b"a", b"b"]


async def test_a_reply_of_another_form_is_reported_without_its_text() -> None:
    assert (expect(int, 7), expect_list(bytes, [b"a"])) == (7, [b"a"])
    with pytest.raises(StoreUnavailable, match=r"^a reply is bytes, not int; check redis_url$"):
        expect(int, b"canary")
    for strange in (b"canary", ["canary"]):
        with pytest.raises(StoreUnavailable):
            expect_list(bytes, strange)


async def test_an_error_names_only_its_kind(store: RedisServer) -> None:
    async with connected(store.url) as redis:
        with pytest.raises(StoreUnavailable, match=r"^unix:///[^ ]+: ResponseError; look at Redis's log$"):
            await redis.run("NONSENSE", "canary")


@pytest.mark.parametrize(
    "command",
    [
        ("LPUSH", "text", "1"),
        ("INCRBY", "text", "1"),
        ("EVAL", "return redis.call('lpush', 'text', 1)", "0"),
        ("EVAL", "return redis.call('incrby', 'text', 1)", "0"),
        ("EVAL", "return 1 + redis.call('get', 'text')", "0"),
        ("XADD", "full", "*", "a", "b"),
    ],
    ids=" ".join,
)
async def test_a_value_of_another_program_is_named_with_its_cure(
    store: RedisServer, command: tuple[str, ...]
) -> None:
    async with connected(store.url) as redis:
        await redis.run("SET", "text", "canary")
        await redis.run("XADD", "full", f"{2**64 - 1}-{2**64 - 1}", "a", "b")
        with pytest.raises(StoreCorrupt, match=r"program has not written; .* redis_url$") as failure:
            await redis.run(*command)
    assert "canary" not in str(failure.value)


async def test_a_connection_that_redis_closed_meanwhile_is_replaced(store: RedisServer) -> None:
    async with connected(store.url) as redis, connected(store.url) as other:
        await redis.run("PING")
        await other.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        async with asyncio.timeout(PATIENCE):
            while expect(bytes, await other.run("CLIENT", "LIST")).count(b"\n") > 1:
                pass
        assert await redis.run("INCRBY", "counter", 1) == 1


IDLE = 3
"""The number of idle connections at the moment of a failover."""


@pytest.mark.parametrize(
    ("said", "explained"),
    [
        ("READONLY You can't write against a read only replica.", "is a replica, which accepts no writes"),
        (
            "ERR Error running script (call to f_1): @user_script:1: -READONLY You can't",
            "is a replica, which",
        ),
        ("NOREPLICAS Not enough good replicas to write.", "has lost its replicas"),
        ("MASTERDOWN Link with MASTER is down.", "is a replica that has lost its master"),
        ("CLUSTERDOWN The cluster is down", "belongs to a cluster that is down"),
        ("LOADING Redis is loading the dataset in memory", "is loading its data"),
        ("NOAUTH Authentication required.", "access denied"),
    ],
    ids=[
        "replica",
        "replica-redis-6",
        "cut-off-master",
        "cut-off-replica",
        "cluster",
        "loading",
        "no-session",
    ],
)
async def test_after_a_failover_one_command_fails_and_the_next_ones_use_new_connections(
    said: str, explained: str
) -> None:
    accepted, demoted = 0, 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        number = accepted
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                parts = [await _read_part(reader) for _ in range(int((await reader.readuntil())[1:]))]
                good = "+PONG" if parts == [b"PING"] else "+OK"
                writer.write(f"{f'-{said}' if number <= demoted else good}\r\n".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, connected(f"redis://127.0.0.1:{port}/0") as redis:
        await asyncio.gather(*(redis.run("PING") for _ in range(IDLE)))
        assert accepted == IDLE
        demoted = accepted  # whatever the name leads to from now on, these connections do not follow
        with pytest.raises(StoreUnavailable, match=explained):
            await redis.run("PING")
        assert all(await asyncio.gather(*(redis.run("PING") for _ in range(IDLE))))


async def _read_part(reader: asyncio.StreamReader) -> bytes:
    """Read one part of a command."""
    length = int((await reader.readuntil())[1:])
    return (await reader.readexactly(length + 2))[:-2]


async def test_an_error_about_a_value_closes_no_connection(store: RedisServer) -> None:
    async with connected(store.url) as redis:
        await redis.run("SET", "text", "canary")
        before = await redis.run("CLIENT", "ID")
        with pytest.raises(StoreCorrupt):
            await redis.run("INCRBY", "text", "1")
        assert await redis.run("CLIENT", "ID") == before


async def test_a_replica_is_named_with_its_cure(store: RedisServer) -> None:
    async with connected(store.url) as redis:
        await redis.run("REPLICAOF", "127.0.0.1", "1")
        for command in (("SET", "a", "b"), ("EVAL", "return redis.call('set', 'a', 'b')", "0")):
            with pytest.raises(
                StoreUnavailable, match=r"is a replica, which accepts no writes; .* the master$"
            ):
                await redis.run(*command)


async def test_commands_over_the_connection_limit_wait(store: RedisServer) -> None:
    async with connected(store.url) as redis:
        done = await asyncio.gather(*(redis.run("INCRBY", "counter", 1) for _ in range(200)))
        assert sorted(expect_list(int, done)) == [*range(1, 201)]
        assert expect(bytes, await redis.run("CLIENT", "LIST")).count(b"\n") <= CONCURRENT_COMMANDS_MAX


async def test_a_silent_redis_times_out_and_closing_does_not_wait_for_it(
    store: RedisServer,
) -> None:
    async with asyncio.timeout(PATIENCE):
        async with connected(store.url, redis_timeout=0.05) as redis:
            store.pause()
            with pytest.raises(StoreUnavailable, match=r": no reply in time; "):
                await redis.run("PING")
        store.resume()


async def test_a_cancelled_command_does_not_spoil_the_next_one(store: RedisServer) -> None:
    async with connected(store.url) as redis:
        for _ in range(20):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.002):
                    while True:
                        await redis.run("ECHO", "wrong")
            assert await redis.run("ECHO", "right") == b"right"


async def test_an_absent_redis_is_unavailable_and_comes_back(store: RedisServer) -> None:
    async with connected(store.url) as redis:
        assert await redis.run("PING")
        await store.stop()
        with pytest.raises(StoreUnavailable, match=r": (connection refused|the socket does not exist); "):
            await redis.run("PING")
        await store.start()
        assert await redis.run("PING")


@pytest.mark.parametrize(
    "reply",
    [
        b"$-5\r\n",
        b":abc\r\n",
        b"*x\r\n",
        b"*-7\r\n",
        b"$x\r\n",
        b"%1\r\n+a\r\n",
        b"hello\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\x01\x02\r\n",
        b"+\xff\xfe\r\n",
        b"-\xff\r\n",
        b"-\r\n",
        b"\r\n",
        b"*1\r\n*1\r\n$-5\r\n",
        b"+OK\r\n",
        b"$-1\r\n",
        b"*0\r\n",
        b":1\r\n",
    ],
)
async def test_a_bad_reply_raises_only_redis_unavailable(reply: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(4096):
                writer.write(reply)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, connected(f"redis://127.0.0.1:{port}/0", redis_timeout=0.2) as redis:
        with contextlib.suppress(StoreUnavailable):
            await redis.run("PING")
        with contextlib.suppress(StoreUnavailable):
            await redis.run_script("return 1", ["key"], within=0.2)
        counting = Counting(redis)
        assert await counting.hit(parse("1/minute"), "caller") in {True, False}
        await counting.add(parse("1/minute"), "caller", amount=1)
        assert await counting.is_spent(parse("1/minute"), "caller") in {True, False}
        await counting.requests_left(parse("1/minute"), "caller")
        await counting.amount_left(parse("1/minute"), "caller")
