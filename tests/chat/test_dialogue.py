"""One dialogue: how it ends, and what the visitor sees."""

import asyncio
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from proxy.chat.channels import MemoryChannels, StopReason
from proxy.errors import InvalidRequest, Overloaded, ProxyError, TokenUnavailable
from proxy.redis_connection import StoreUnavailable
from tests.chat.dialogue_room import Model, free, room, said
from tests.pace import PATIENCE


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


async def test_a_chosen_model_answers_and_is_named_at_the_end() -> None:
    async with room(Model(said("a"))) as chat:
        assert await chat.dialogues.ask("c", "hi", "r", model="other") is None
        await free(chat)
        async with chat.broker.subscribe("c", "0-0") as reader, asyncio.timeout(PATIENCE):
            while (data := cast(dict[str, Any], (await reader.get()).data)).get("state") != "done":
                pass
    assert data["model"] == "other"
    assert chat.model.models == ["other"]
