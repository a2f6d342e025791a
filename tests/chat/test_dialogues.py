"""Dialogues with fakes: failures of the broker, the renderer, the lease and the model."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from proxy.chat import outbox, publisher
from proxy.chat.channels import MemoryChannels, StopReason
from proxy.chat.conversation import MemoryConversation
from proxy.chat.conversation_list import MemoryConversationList
from proxy.chat.dialogues import Branch, Dialogues
from proxy.chat.event import Event, Position
from proxy.chat.memory_broker import MemoryBroker
from proxy.chat.notices import Notice
from proxy.chat.render import BlockKind
from proxy.chat.stores import Stores
from proxy.chat.upstream import ChatUpstream, Message, ModelAnswer
from proxy.drain import Drain
from proxy.errors import InvalidRequest, Overloaded, ProxyError, TokenUnavailable
from proxy.redis_connection import StoreUnavailable
from proxy.settings import Chat
from proxy.telemetry import ExchangeRecord
from tests.pace import PATIENCE


def said(text: str) -> bytes:
    return b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % text.encode()


class Model:
    """Says these bytes; `None` among them waits for ever."""

    def __init__(self, *chunks: bytes | None, error: ProxyError | None = None) -> None:
        self.chunks = chunks
        self.error = error
        self.asked: list[Sequence[Message]] = []
        self.models: list[str] = []
        self.left = asyncio.Event()

    @contextlib.asynccontextmanager
    async def ask(
        self, messages: Sequence[Message], request_id: str, model: str
    ) -> AsyncIterator[ModelAnswer]:
        self.asked.append(messages)
        self.models.append(model)
        if self.error is not None:
            raise self.error
        body = cast(AsyncGenerator[bytes], self._body(self.chunks))
        yield ModelAnswer(200, streamed=True, body=body, record=ExchangeRecord(request_id, "POST", "/"))

    async def _body(self, chunks: Iterable[bytes | None]) -> AsyncIterator[bytes]:
        try:
            for chunk in chunks:
                if chunk is None:
                    await asyncio.Event().wait()
                else:
                    await asyncio.sleep(0)
                    yield chunk
        finally:
            self.left.set()


def code(notice: Notice | None) -> str:
    """The code of a notice, or "" for none."""
    return "" if notice is None else notice.code


class Room:
    """One channel and its dialogues."""

    def __init__(self, model: Model, broker: MemoryBroker, channels: MemoryChannels, drain: Drain) -> None:
        self.model = model
        self.broker = broker
        self.channels = channels
        stores = Stores(broker, channels, MemoryConversation(3), MemoryConversationList(expire=60))
        upstream = cast(ChatUpstream, model)
        self.dialogues = Dialogues(Chat(turns=2), stores, upstream, drain, shared=False)

    async def ask(self, prompt: str = "hi") -> str:
        """Ask, and return the code of the notice, or ""."""
        return code(await self.dialogues.ask("c", prompt, "r"))

    async def turn(self) -> list[str]:
        """Return the published blocks and states, up to the end of the turn."""
        shown: list[str] = []
        async with self.broker.subscribe("c", "0-0") as subscription, asyncio.timeout(PATIENCE):
            while not shown or shown[-1] not in {"done", "stopped", "failed"}:
                data = cast(dict[str, Any], (await subscription.get()).data)
                shown.append(data.get("message") or data["state"])
        return shown


@contextlib.asynccontextmanager
async def room(
    model: Model,
    broker: MemoryBroker | None = None,
    channels: MemoryChannels | None = None,
    drain: Drain | None = None,
) -> AsyncIterator[Room]:
    found = Room(model, broker or MemoryBroker(), channels or MemoryChannels(), drain or Drain())
    async with found.dialogues:
        yield found


async def free(chat: Room, channel: str = "c") -> None:
    """Wait until no dialogue runs."""
    async with asyncio.timeout(PATIENCE):
        while await chat.channels.busy(channel):  # noqa: ASYNC110  there is no event for that
            await asyncio.sleep(0)


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


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Overloaded(), "Too many are asking"),
        (TokenUnavailable(), "cannot be reached"),
        (InvalidRequest("with the vendor's words"), "cut off"),
    ],
)
async def test_an_error_is_explained_to_the_visitor(error: ProxyError, told: str) -> None:
    async with room(Model(error=error)) as chat:
        await chat.ask()
        shown = await chat.turn()
    assert told in shown[-2]
    assert "vendor" not in "".join(shown)


async def test_a_lost_lease_ends_the_answer() -> None:
    class Losing(MemoryChannels):
        async def wait_for_stop(self, channel: str) -> StopReason:
            return "lost"

    async with room(Model(said("a"), None), channels=Losing()) as chat:
        await chat.ask()
        shown = await chat.turn()
    assert "cut off" in shown[-2]
    assert shown[-1] == "failed"


async def test_a_failed_watch_for_stops_is_logged_and_the_answer_continues() -> None:
    class Deaf(MemoryChannels):
        async def wait_for_stop(self, channel: str) -> StopReason:
            raise StoreUnavailable("away")

    with capture_logs() as lines:
        async with room(Model(said("a")), channels=Deaf()) as chat:
            await chat.ask()
            shown = await chat.turn()
    assert shown[-1] == "done"
    assert [line["event"] for line in lines] == ["chat_stop_watch_failed"]


async def test_after_an_early_stop_the_question_is_not_sent() -> None:
    async with room(Model(said("a"))) as chat:
        await chat.ask()  # its task has not begun yet
        await chat.dialogues.stop("c")
        shown = await chat.turn()
    assert shown[-1] in {"stopped", "done"}


async def test_half_an_answer_is_remembered_and_none_is_not() -> None:
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


async def test_nothing_begins_while_the_service_drains() -> None:
    drain = Drain()
    async with room(Model(said("a")), drain=drain) as chat:
        drain.started = True
        assert await chat.ask() == "restarting"
        assert code(await chat.dialogues.regenerate("c", "r")) == "restarting"
    assert chat.model.asked == []


async def test_a_visitor_who_disconnects_while_asking_has_asked() -> None:
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


async def test_an_edited_question_goes_on_from_the_beginning_of_the_conversation() -> None:
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


async def test_a_chosen_model_answers_and_is_named_at_the_end() -> None:
    async with room(Model(said("a"))) as chat:
        assert await chat.dialogues.ask("c", "hi", "r", model="other") is None
        await free(chat)
        async with chat.broker.subscribe("c", "0-0") as reader, asyncio.timeout(PATIENCE):
            while (data := cast(dict[str, Any], (await reader.get()).data)).get("state") != "done":
                pass
    assert data["model"] == "other"
    assert chat.model.models == ["other"]


async def questions(chat: Room, channel: str) -> list[tuple[Position, str]]:
    """The positions and texts of the questions in a channel."""
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
