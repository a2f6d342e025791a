"""Dialogues with fakes: failures of the broker, the renderer, the lease and the model."""

import asyncio
import contextlib
import time
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from proxy.chat import outbox, publisher
from proxy.chat.dialogues import Branch, clean_prompt
from proxy.chat.event import Event, Position
from proxy.chat.memory_broker import MemoryBroker
from proxy.chat.render import BlockKind
from proxy.drain import Drain
from proxy.errors import Overloaded, RateLimited
from proxy.redis_connection import StoreUnavailable
from tests.chat.dialogue_room import Model, Room, code, free, room, said
from tests.pace import PATIENCE, paced


async def test_an_empty_question_is_not_sent() -> None:
    async with room(Model()) as chat:
        assert await chat.ask(" \n") == ""
        assert not await chat.channels.busy("c")
    assert chat.model.asked == []


async def test_a_broker_that_fails_at_the_question_leaves_the_channel_free() -> None:
    class Broken(MemoryBroker):
        async def publish(self, channel: str, event: Event, **options: Any) -> str:
            raise StoreUnavailable("away")

    async with room(Model(), Broken()) as chat:
        with pytest.raises(StoreUnavailable):
            await chat.ask()
        with pytest.raises(StoreUnavailable):
            await chat.dialogues.reset("c")
        assert not await chat.channels.busy("c")


async def test_a_broker_that_fails_during_an_answer_ends_only_that_dialogue() -> None:
    class Failing(MemoryBroker):
        async def publish(self, channel: str, event: Event, **options: Any) -> str:
            if channel == "c" and "answering" in str(event.data):
                raise StoreUnavailable("away")
            return await super().publish(channel, event, **options)

    with capture_logs() as lines:
        async with room(Model(said("a")), Failing()) as chat, asyncio.timeout(PATIENCE):
            await chat.ask()
            await free(chat)
            assert await chat.dialogues.ask("d", "hi", "r") is None
            async with chat.broker.subscribe("d", "0-0") as other:
                while "done" not in str((await other.get()).data):
                    pass
    assert [line["event"] for line in lines] == ["chat_dialogue_not_published"]


async def test_after_too_long_an_outage_the_answer_ends_with_an_error_that_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Away(MemoryBroker):
        def __init__(self) -> None:
            super().__init__()
            self.back = asyncio.Event()

        async def publish(self, channel: str, event: Event, **options: Any) -> str:
            if "answering" in str(event.data):
                await self.back.wait()
            return await super().publish(channel, event, **options)

    monkeypatch.setattr(outbox, "OUTAGE_SECONDS", 0.01)
    model, broker = Model(said("a"), None), Away()
    async with room(model, broker) as chat:
        await chat.ask()
        async with asyncio.timeout(PATIENCE):
            await model.left.wait()  # before the answer's beginning is published
        broker.back.set()
        shown = await chat.turn()
    assert shown[2:4] == ["answering", "<div class='left'><p>a</p></div>"]
    assert "cut off" in shown[4]
    assert shown[5:] == ["failed"]


async def test_an_unexpected_error_is_logged_shown_and_ends_only_that_dialogue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks(kind: BlockKind, text: str) -> str:
        if kind == "left":
            raise ZeroDivisionError
        return f"<div class='{kind}'>{text}</div>"

    monkeypatch.setattr(publisher, "render_block", breaks)
    with capture_logs() as lines:
        async with room(Model(said("a"))) as chat:
            await chat.ask()
            shown = await chat.turn()
            assert await chat.ask() == ""
    assert "Something went wrong" in shown[-2]
    assert shown[-1] == "failed"
    assert lines[0]["event"] == "chat_dialogue_failed"


async def test_a_partial_answer_is_stored_and_an_empty_one_is_not() -> None:
    model = Model(said("half"), None)
    async with room(model) as chat:
        await chat.ask("a")
        async with asyncio.timeout(PATIENCE), chat.broker.subscribe("c", "0-0") as heard:
            while "answering" not in str((await heard.get()).data):
                pass
        await chat.dialogues.stop("c")
        await chat.turn()
        model.chunks, model.error = (), Overloaded()
        await chat.ask("b")
        await free(chat)
        model.error = None
        await chat.ask("c")
    assert [message["content"] for message in model.asked[-1]] == ["a", "half", "c"]


async def test_closing_the_service_ends_running_dialogues() -> None:
    async with room(Model(said("half"), None)) as chat:
        await chat.ask()
        async with asyncio.timeout(PATIENCE), chat.broker.subscribe("c", "0-0") as heard:
            while "answering" not in str((await heard.get()).data):
                pass
    shown = await chat.turn()
    assert "restarting" in shown[-2]
    assert await chat.ask() == "restarting"


async def test_no_dialogue_starts_while_the_service_drains() -> None:
    drain = Drain()
    async with room(Model(said("a")), drain=drain) as chat:
        drain.started = True
        assert await chat.ask() == "restarting"
        assert code(await chat.dialogues.regenerate("c", "r")) == "restarting"
    assert chat.model.asked == []


async def test_a_question_is_asked_even_if_its_visitor_disconnects() -> None:
    class Slow(MemoryBroker):
        def __init__(self) -> None:
            super().__init__()
            self.go_on, self.begun = asyncio.Event(), asyncio.Event()

        async def publish(self, channel: str, event: Event, **options: Any) -> str:
            self.begun.set()
            await self.go_on.wait()
            return await super().publish(channel, event, **options)

    broker = Slow()
    async with room(Model(said("a")), broker) as chat, asyncio.TaskGroup() as group:
        asking = group.create_task(chat.ask("the question"))
        await broker.begun.wait()
        asking.cancel()
        broker.go_on.set()
        assert (await chat.turn())[-1] == "done"
        await free(chat)
        assert await chat.dialogues.regenerate("c", "r") is None
        await free(chat)
    assert [messages[-1]["content"] for messages in chat.model.asked] == ["the question"] * 2


async def test_a_question_whose_answer_failed_can_be_asked_again() -> None:
    async with room(Model(error=Overloaded())) as chat:
        for prompt in ("first", "second"):
            assert await chat.ask(prompt) == ""
            await free(chat)
        assert await chat.dialogues.regenerate("c", "r") is None
        await free(chat)
    assert [messages[-1]["content"] for messages in chat.model.asked] == ["first", "second", "second"]


async def test_an_edited_question_branches_from_the_earlier_turns() -> None:
    model = Model(said("a"))
    async with room(model) as chat:
        for prompt in ("first", "second", "third"):
            await chat.ask(prompt)
            await free(chat)
        (*_, second, _) = await questions(chat, "c")
        edited = await chat.dialogues.ask("new", "other", "r", session="s", branch=Branch("c", second[0]))
        assert edited is None
        await free(chat, "new")
        assert [text for _, text in await questions(chat, "new")] == ["first", "other"]
        assert [message["content"] for message in model.asked[-1]] == ["first", "a", "other"]
        assert [text for _, text in await questions(chat, "c")] == ["first", "second", "third"]
        again = await chat.dialogues.ask("new", "x", "r", branch=Branch("c", second[0]))
        assert code(again) == "bad_request"
        await free(chat, "new")


@pytest.mark.parametrize("place", range(8))
async def test_no_later_turn_is_sent_with_an_edited_question(place: int) -> None:
    """The model's memory holds fewer turns than the page shows."""
    model = Model(said("a"))
    async with room(model) as chat:
        for number in range(8):
            await chat.ask(f"question {number}")
            await free(chat)
        asked = await questions(chat, "c")
        await chat.dialogues.ask("new", "edited", "r", branch=Branch("c", asked[place][0]))
        await free(chat, "new")
        sent = [message["content"] for message in model.asked[-1] if message["role"] == "user"]
    earlier = [f"question {number}" for number in range(place)]
    assert sent[-1] == "edited"
    assert sent[:-1] == earlier[len(earlier) - len(sent) + 1 :]


async def test_an_address_copies_a_limited_number_of_bytes() -> None:
    async with room(Model(said("a" * 20_000))) as chat:
        await chat.ask("first")
        await free(chat)
        await chat.ask("second")
        await free(chat)
        (*_, second) = await questions(chat, "c")
        outcomes = list[str]()
        for number in range(1_000):
            branch = Branch("c", second[0])
            try:
                await chat.dialogues.ask(f"new{number}", "edited", "r", "192.0.2.1", branch=branch)
            except RateLimited:
                outcomes.append("limited")
                break
            await free(chat, f"new{number}")
            outcomes.append("copied")
        assert outcomes[0] == "copied"
        assert outcomes[-1] == "limited"
        other = await chat.dialogues.ask("other", "edited", "r", "192.0.2.2", branch=Branch("c", second[0]))
        assert other is None
        await free(chat, "other")


@pytest.mark.parametrize("text", ["a" + "\u0301" * 24_000 + "\u0316" * 24_000, "\r\u202e" * 24_000])
def test_cleaning_a_prompt_takes_linear_time(text: str) -> None:
    began = time.process_time()
    clean_prompt(text)
    assert time.process_time() - began < paced(0.3)


async def questions(chat: Room, channel: str) -> list[tuple[Position, str]]:
    """Return the positions and texts of the questions in a channel."""
    found: list[tuple[Position, str]] = []
    async with chat.broker.subscribe(channel, "0-0") as reader:
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.05):
                    event = await reader.get()
                text = str(cast(dict[str, Any], event.data).get("message"))
                if "'right'" in text and event.position is not None:
                    found.append((event.position, text.split("<p>")[1].split("</p>")[0]))
    return found
