"""Search in the titles and texts of a visitor's conversations, in memory and over Redis."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from proxy.chat import search
from proxy.chat.broker import PAGE_EVENTS
from proxy.chat.event import Event
from proxy.chat.render import BlockKind, render_block
from proxy.chat.search import SEARCHES_MAX, ConversationSearch
from proxy.chat.stores import Stores
from proxy.errors import RateLimited
from proxy.task_groups import task_group
from tests.chat.conftest import OpenStores


async def say(stores: Stores, channel: str, kind: BlockKind, text: str) -> None:
    """Publish a block, as a dialogue does."""
    await stores.broker.publish(channel, Event({"message": render_block(kind, text)}, "message_event"))


async def found(stores: Stores, words: str, session: str = "s") -> list[str]:
    """Return the channels that a search finds."""
    searching = ConversationSearch(stores.conversations, stores.broker)
    return [listed.channel for listed in await searching.find(session, words)]


async def test_words_are_found_in_titles_questions_and_answers(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        for channel, title in (("a", "Weather"), ("b", "天气"), ("c", "Empty")):
            await here.conversations.note("s", channel, title)
        await say(here, "a", "right", "Will it rain <tomorrow>?")
        await say(here, "a", "describe", "a thought")
        await say(here, "a", "left", "It **may** rain & snow.\n")
        await here.broker.publish("b", Event({"state": "done"}, "state_event"))
        await say(here, "b", "left", "明天**有雨**。")
        assert await found(there, "EMPTY") == ["c"]
        assert await found(there, "rain <tomorrow>") == ["a"]
        assert await found(there, "may  RAIN & snow") == ["a"]
        assert await found(there, "天有雨") == ["b"]
        assert await found(there, "thought") == []
        assert await found(there, "strong") == [], "markup is no text"
        assert await found(there, "rain", session="other") == []


async def test_an_answer_that_another_one_replaced_is_not_found(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        await here.conversations.note("s", "a", "title")
        await say(here, "a", "right", "question")
        await say(here, "a", "left", "replaced")
        await here.broker.publish("a", Event({"state": "regenerating"}, "state_event"))
        await say(here, "a", "left", "kept")
        assert await found(there, "replaced") == []
        assert await found(there, "kept") == ["a"]
        assert await found(there, "question") == ["a"]


async def test_more_searches_of_an_address_are_rejected_and_others_served(
    open_both: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stored_slowly(channel: str) -> AsyncGenerator[list[Event]]:
        await asyncio.sleep(0)
        async for page in stored(channel):
            yield list(page)

    async with open_both() as (here, _):
        stored = here.broker.stored
        monkeypatch.setattr(here.broker, "stored", stored_slowly)
        await here.conversations.note("s", "a", "title")
        await say(here, "a", "right", "question")
        searching = ConversationSearch(here.conversations, here.broker)

        async def search_from(address: str) -> int:
            try:
                return len(await searching.find("s", "question", address))
            except RateLimited:
                return -1

        async with asyncio.TaskGroup() as group:
            many = [group.create_task(search_from("192.0.2.1")) for _ in range(SEARCHES_MAX + 2)]
            other = group.create_task(search_from("192.0.2.2"))
        assert sorted(task.result() for task in many) == [-1, -1, *[1] * SEARCHES_MAX]
        assert other.result() == 1


async def test_words_are_found_where_a_page_of_events_ends(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        await here.conversations.note("s", "a", "title")
        for number in range(PAGE_EVENTS + 5):
            await say(here, "a", "left", f"<{number}>")
        assert await found(there, f"<{PAGE_EVENTS - 1}><{PAGE_EVENTS}>") == ["a"]


async def test_other_tasks_run_while_long_texts_are_searched(open_both: OpenStores) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with open_both() as (here, there):
        await here.conversations.note("s", "a", "title")
        for _ in range(PAGE_EVENTS - 1):  # all on one page
            await say(here, "a", "left", "word " * 3_500)
        async with task_group() as group:
            counting = group.create_task(count_turns())
            assert await found(there, "no such word") == []
            counting.cancel()
    assert turns >= (PAGE_EVENTS - 1) * 17_500 // (1 << 17)


async def test_a_search_reads_a_limited_number_of_bytes(
    open_both: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "TEXT_CHARS_MAX", 1000)
    async with open_both() as (here, there):
        for channel in ("older", "later"):
            await here.conversations.note("s", channel, channel)
            await say(here, channel, "left", f"{'x' * 1500} word")
        assert await found(there, "word") == ["later"]
        assert await found(there, "older") == ["older"]


async def test_a_search_that_takes_too_long_returns_what_it_has_found(
    open_both: OpenStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SEARCH_SECONDS", 0.0)
    async with open_both() as (here, there):
        for channel in ("word", "other"):
            await here.conversations.note("s", channel, channel)
        for text in [*"x" * PAGE_EVENTS, "word"]:
            await say(here, "other", "left", text)
        assert await found(there, "word") == ["word"]
