"""The last turns of a channel, in memory and over Redis."""

import pytest
from structlog.testing import capture_logs

from proxy.chat.conversation import MemoryConversation, RedisConversation, Turn
from proxy.credentials.sharing.record import Seal
from proxy.redis_connection import expect, expect_list
from tests.chat.conftest import OpenStores, open_redis, processes, shared
from tests.redis_server import RedisServer

TURNS = [Turn(f"问题 {number}", f"答案\n{number}") for number in range(6)]


async def test_the_last_turns_are_kept_for_all_processes(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        assert await here.conversation.turns("c") == []
        for turn in TURNS:
            await here.conversation.append("c", turn)
        assert await there.conversation.turns("c") == TURNS[-3:]
        assert await there.conversation.turns("other") == []


async def test_the_last_turn_can_be_replaced_and_all_can_be_cleared(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        await here.conversation.replace_last("c", TURNS[0])
        assert await here.conversation.turns("c") == TURNS[:1]
        await here.conversation.append("c", TURNS[1])
        await there.conversation.replace_last("c", TURNS[2])
        assert await here.conversation.turns("c") == [TURNS[0], TURNS[2]]
        await there.conversation.clear("c")
        assert await here.conversation.turns("c") == []


async def test_in_memory_a_silent_conversation_is_forgotten() -> None:
    now = 0.0
    conversation = MemoryConversation(3, expire=10, limit=2, clock=lambda: now)
    await conversation.append("c", TURNS[0])
    now = 9.0
    await conversation.append("c", TURNS[1])
    now = 18.9
    assert await conversation.turns("c") == TURNS[:2]
    now = 19.0
    assert await conversation.turns("c") == []
    for channel in ("a", "b", "c"):
        await conversation.append(channel, TURNS[0])
    assert [await conversation.turns(channel) for channel in ("a", "b", "c")] == [[], TURNS[:1], TURNS[:1]]


async def test_memory_is_bounded_however_long_the_turns_are() -> None:
    now = 0.0
    conversation = MemoryConversation(3, expire=10, total=100, clock=lambda: now)
    for number in range(50):
        await conversation.append(f"c{number}", Turn("问" * 10, ""))
        await conversation.replace_last(f"c{number}", Turn("问" * 10, "答" * 10))
    kept = [number for number in range(50) if await conversation.turns(f"c{number}")]
    assert kept == [45, 46, 47, 48, 49]
    await conversation.clear("c49")
    for number in (45, 46):
        await conversation.append(f"c{number}", Turn("", "答" * 10))
    assert [len(await conversation.turns(f"c{number}")) for number in range(45, 50)] == [2, 2, 1, 1, 0]
    now = 10.0  # what has expired makes room
    assert await conversation.turns("c45") == []
    for number in range(10):
        await conversation.append(f"d{number}", Turn("问" * 10, ""))
    assert all([await conversation.turns(f"d{number}") for number in range(10)])
    await conversation.append("long", Turn("问" * 200, ""))
    assert await conversation.turns("long") == [Turn("问" * 200, "")]
    assert await conversation.turns("d9") == []


async def test_no_turns_are_stored_if_the_limit_is_zero(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, _):
        settings = shared(store.url)
        over_redis = RedisConversation(redis, Seal(settings.keys), 0)
        for conversation in (MemoryConversation(0), over_redis):
            await conversation.append("c", TURNS[0])
            assert await conversation.turns("c") == []


async def test_turns_in_redis_are_encrypted_and_expire(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, _), processes(1, store.url) as (process,):
        await process.conversation.append("c", Turn("prompt canary", "answer canary"))
        (key,) = expect_list(bytes, await redis.run("KEYS", "*"))
        (sealed,) = expect_list(bytes, await redis.run("LRANGE", key, 0, -1))
        assert b"canary" not in sealed
        assert 0 < expect(int, await redis.run("PTTL", key)) <= 3_600_000


@pytest.mark.parametrize("plain", [b"5", b"\xff", b'["a"]', b'["a", 1]', b'{"a": 1, "b": 2}', b"[" * 100_000])
async def test_a_turn_of_another_form_is_skipped(store: RedisServer, plain: bytes) -> None:
    settings, key = shared(store.url), "llm-token-proxy:{c}:turns"
    async with open_redis(settings) as (redis, _):
        seal = Seal(settings.keys)
        conversation = RedisConversation(redis, seal, 3)
        await redis.run("RPUSH", key, seal.close(plain, key))
        await conversation.append("c", TURNS[0])
        assert await conversation.turns("c") == [TURNS[0]]


async def test_no_more_turns_are_read_than_are_kept(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, _), processes(1, store.url) as (process,):
        await redis.run("RPUSH", "llm-token-proxy:{c}:turns", *["of another program"] * 1000)
        with capture_logs() as lines:
            assert await process.conversation.turns("c") == []
    assert len(lines) == 3


async def test_a_turn_that_no_key_decrypts_is_skipped(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, _), processes(1, store.url) as (process,):
        await process.conversation.append("other", TURNS[0])
        (moved,) = expect_list(bytes, await redis.run("LRANGE", "llm-token-proxy:{other}:turns", 0, -1))
        for strange in (b"not sealed", moved):
            await redis.run("RPUSH", "llm-token-proxy:{c}:turns", strange)
        await process.conversation.append("c", TURNS[1])
        assert await process.conversation.turns("c") == [TURNS[1]]
