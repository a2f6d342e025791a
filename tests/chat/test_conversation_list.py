"""The conversations of a visitor, in memory and over Redis."""

import asyncio

import pytest
from structlog.testing import capture_logs

from proxy.chat.conversation_list import (
    LISTED_MAX,
    TITLE_CHARS_MAX,
    ConversationList,
    MemoryConversationList,
    RedisConversationList,
)
from proxy.credentials.sharing.record import Seal
from proxy.redis_connection import expect, expect_list
from tests.chat.conftest import OpenStores, open_redis, processes, shared
from tests.pace import PATIENCE, paced
from tests.redis_server import RedisServer


async def titles(conversations: ConversationList, session: str = "s") -> list[tuple[str, str]]:
    """Return the channels and titles of a session."""
    return [(listed.channel, listed.title) for listed in await conversations.read(session)]


async def test_conversations_are_listed_in_the_order_of_their_last_questions(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        for channel, question in (("a", "一"), ("b", "二"), ("a", "三")):
            await here.conversations.note("s", channel, question)
        assert await titles(there.conversations) == [("a", "一"), ("b", "二")]
        assert await titles(there.conversations, "other") == []
        await there.conversations.remove("s", "a")
        assert await titles(here.conversations) == [("b", "二")]
        await here.conversations.note("s", "a", "四")
        assert await titles(here.conversations) == [("a", "四"), ("b", "二")]


async def test_a_renamed_conversation_keeps_its_title(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        assert not await here.conversations.rename("s", "a", "new")
        await here.conversations.note("s", "a", "old")
        assert await there.conversations.rename("s", "a", "new")
        await here.conversations.note("s", "a", "later")
        assert await titles(here.conversations) == [("a", "new")]


async def test_a_title_is_one_short_line(open_both: OpenStores) -> None:
    async with open_both() as (here, _):
        await here.conversations.note("s", "a", "长" * 500)
        await here.conversations.note("s", "b", " a\n\tb  c ")
        (_, short), (_, long) = await titles(here.conversations)
        assert short == "a b c"
        assert long == "长" * (TITLE_CHARS_MAX - 1) + "…"


@pytest.mark.timeout(60 + PATIENCE)
async def test_a_list_is_limited(open_both: OpenStores) -> None:
    async with open_both() as (here, _):
        for number in range(LISTED_MAX + 5):
            await here.conversations.note("s", f"c{number:04}", "x")
        found = [channel for channel, _ in await titles(here.conversations)]
        assert len(found) == LISTED_MAX
        assert set(found) >= {f"c{number:04}" for number in range(LISTED_MAX - 50, LISTED_MAX + 5)}


async def test_in_memory_old_conversations_and_lists_are_dropped() -> None:
    now = 1000.0
    conversations = MemoryConversationList(expire=10, limit=2, clock=lambda: now)
    await conversations.note("s", "a", "1")
    now += 9
    await conversations.note("s", "b", "2")
    now += 1
    assert await titles(conversations) == [("b", "2")]
    now += 9
    assert await titles(conversations) == []
    for session in ("s", "t", "u"):
        await conversations.note(session, "a", "1")
    assert [len(await titles(conversations, session)) for session in "stu"] == [0, 1, 1]


async def test_titles_in_redis_are_encrypted_and_expire(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, _), processes(1, store.url) as (process,):
        await process.conversations.note("session-canary", "a", "title canary")
        for key in expect_list(bytes, await redis.run("KEYS", "*")):
            assert b"canary" not in key
            assert 0 < expect(int, await redis.run("PTTL", key)) <= 3_600_000
            if key.endswith(b":titles"):
                sealed = expect(bytes, await redis.run("HGET", key, "a"))
                assert b"canary" not in sealed
                await redis.run("HSET", key, "b", sealed)
        assert not await process.conversations.rename("session-canary", "c", "x")
        await process.conversations.note("session-canary", "b", "x")  # its title was moved there
        assert await titles(process.conversations, "session-canary") == [("a", "title canary")]


async def test_no_more_conversations_are_read_than_are_listed(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, _), processes(1, store.url) as (process,):
        await process.conversations.note("s", "a", "a")
        (recent,) = expect_list(bytes, await redis.run("KEYS", "*:recent"))
        await redis.run("ZADD", recent, *(part for place in range(1000) for part in ("9e12", f"x{place}")))
        with capture_logs() as lines:
            assert await titles(process.conversations, "s") == []
    assert len(lines) == LISTED_MAX


@pytest.mark.parametrize("score", ["inf", "1e300", "8640000000000001", "9007199254740992"])
async def test_a_conversation_with_an_impossible_time_is_not_listed(store: RedisServer, score: str) -> None:
    async with open_redis(shared(store.url)) as (redis, _), processes(1, store.url) as (process,):
        for channel in "ab":
            await process.conversations.note("s", channel, channel)
        (recent,) = expect_list(bytes, await redis.run("KEYS", "*:recent"))
        await redis.run("ZADD", recent, score, "a")
        await redis.run("ZADD", recent, "9e12", b"\xff")
        assert await titles(process.conversations, "s") == [("b", "b")]


async def test_a_conversation_in_redis_is_no_longer_listed_after_a_while(store: RedisServer) -> None:
    settings = shared(store.url)
    async with open_redis(settings) as (redis, _):
        conversations = RedisConversationList(redis, Seal(settings.keys), expire=paced(1.0))
        await conversations.note("s", "a", "1")
        assert await titles(conversations, "s") == [("a", "1")]
        async with asyncio.timeout(PATIENCE):
            while await titles(conversations, "s"):
                pass
