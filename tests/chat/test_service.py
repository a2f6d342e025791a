"""The chat of one worker: what its settings limit, and how a drain ends its event streams."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.chat import service
from proxy.chat.event import Event
from proxy.chat.readers import OPENING
from proxy.chat.service import VISITS_PER_QUESTION, ChatService, open_chat
from proxy.chat.stores import open_stores
from proxy.drain import Drain
from proxy.errors import RateLimited
from proxy.services import Services
from proxy.settings import Chat, Settings
from tests.pace import PATIENCE

SETTINGS = Settings.model_validate(
    {
        "access": {"mode": "open"},
        "routes": {"default": "main"},
        "upstreams": {"main": {"base_url": "http://127.0.0.1:1/v1"}},
    }
)


def no_services() -> Services:
    raise AssertionError("nobody asks a question")


@contextlib.asynccontextmanager
async def opened(drain: Drain | None = None, **settings: object) -> AsyncIterator[ChatService]:
    """A chat in memory."""
    chat = Chat.model_validate(settings)
    async with open_chat(SETTINGS, chat, no_services, drain or Drain()) as found:
        yield found


async def rest(stream: AsyncIterator[bytes]) -> list[bytes]:
    """The pieces of a stream until it ends."""
    async with asyncio.timeout(PATIENCE):
        return [piece async for piece in stream]


async def test_a_drain_ends_the_event_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "CLOSING_SECONDS", 0.0)
    drain = Drain()
    async with opened(drain) as chat, chat.broker.subscribe("c", None) as subscription:
        stream = chat.readers.stream(subscription)
        assert await anext(stream) == OPENING
        drain.started = True
        assert await rest(stream) == []


async def test_readers_receive_what_is_published_at_the_start_of_the_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "CLOSING_SECONDS", PATIENCE)
    drain = Drain()
    async with opened(drain) as chat, chat.broker.subscribe("c", None) as subscription:
        stream = chat.readers.stream(subscription)
        await anext(stream)
        drain.started = True
        await chat.broker.publish("c", Event("the end"))
        async with asyncio.timeout(PATIENCE):
            assert b"the end" in await anext(stream)


async def test_closing_the_chat_ends_the_event_streams() -> None:
    async with opened() as chat:
        subscribed = chat.broker.subscribe("c", None)
        stream = chat.readers.stream(await subscribed.__aenter__())
        await anext(stream)
    assert await rest(stream) == []
    await subscribed.__aexit__(None, None, None)


async def test_a_page_may_request_its_state_more_often_than_a_visitor_may_ask() -> None:
    async with opened(rate="1/hour") as chat:
        await chat.rate.count("session", "address")
        with pytest.raises(RateLimited):
            await chat.rate.count("session", "address")
        for _ in range(VISITS_PER_QUESTION):
            await chat.visits.count("session", "address")
        with pytest.raises(RateLimited):
            await chat.visits.count("session", "address")


async def test_an_address_may_have_as_many_streams_as_the_settings_say() -> None:
    async with opened(max_streams=1) as chat:
        with (
            chat.streams.slot("a"),
            chat.streams.slot("b"),
            pytest.raises(RateLimited),
            chat.streams.slot("a"),
        ):
            pass


async def test_one_turn_is_kept_even_if_the_model_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {}

    def spy(*arguments: Any, **more: Any) -> Any:
        options.update(more)
        return open_stores(*arguments, **more)

    monkeypatch.setattr(service, "open_stores", spy)
    async with opened(turns=0, keep=7, keep_bytes=8, keep_seconds=9):
        assert options == {"turns": 1, "kept": 7, "size": 8, "expire": 9, "longest": 600}
