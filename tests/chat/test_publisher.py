"""The events of one dialogue: their order, their kinds, and which text is kept as the answer."""

import asyncio
import re

from proxy.chat import notices
from proxy.chat.broker import Mark
from proxy.chat.deltas import Delta
from proxy.chat.event import Event
from proxy.chat.memory_broker import MemoryBroker
from proxy.chat.outbox import Outbox
from proxy.chat.publisher import ANSWER_CHARS_MAX, SLICE_CHARS, THREAD_CHARS, Publisher, block_event
from proxy.task_groups import task_group


class Collected(Outbox):
    """An outbox that keeps its events."""

    def __init__(self) -> None:
        super().__init__(MemoryBroker(), "c", "holder", print)
        self.events: list[Event] = []

    async def put(self, event: Event, mark: Mark | None = None) -> None:
        self.events.append(event)

    def shown(self) -> list[str]:
        """Return states unchanged, and blocks as class and text."""
        found = []
        for event in self.events:
            assert isinstance(event.data, dict)
            if "state" in event.data:
                found.append(str(event.data["state"]))
            else:
                block = str(event.data["message"])
                kind = re.search(r"class='([a-z]+)", block)
                assert kind is not None, block
                found.append(f"{kind[1]}: {re.sub('<[^>]*>', '', block).strip()}")
        return found


async def test_each_kind_of_text_begins_with_its_state() -> None:
    outbox = Collected()
    publisher = Publisher(outbox)
    outputs = [publisher.has_output]
    await publisher.add(Delta("reasoning", "Let me"))
    await publisher.add(Delta("reasoning", " think."))
    await publisher.add(Delta("answer", "One"))
    await publisher.add(Delta("answer", " answer."))
    await publisher.flush()
    assert outbox.shown() == [
        "thinking",
        "describe: Let me think.",
        "answering",
        "left: One answer.",
    ]
    outputs.append(publisher.has_output)
    assert outputs == [False, True]
    assert publisher.answer == "One answer."


async def test_blank_text_is_no_block() -> None:
    outbox = Collected()
    publisher = Publisher(outbox)
    await publisher.add(Delta("answer", "\n \n"))
    await publisher.flush()
    assert outbox.shown() == ["answering"]


async def test_a_long_text_is_published_whole_and_in_order() -> None:
    outbox = Collected()
    publisher = Publisher(outbox)
    lines = [f"line {number}" for number in range(SLICE_CHARS // 2)]
    await publisher.add(Delta("answer", "\n\n".join(lines)))
    await publisher.flush()
    assert outbox.shown() == ["answering", *(f"left: {line}" for line in lines)]


async def test_other_tasks_run_while_many_small_pieces_are_published() -> None:
    publisher, turns = Publisher(Collected()), 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with task_group() as group:
        counting = group.create_task(count_turns())
        for _ in range(4 * SLICE_CHARS):
            await publisher.add(Delta("answer", "a"))
        counting.cancel()
    assert turns >= 3


async def test_only_the_beginning_of_a_long_answer_is_kept() -> None:
    publisher = Publisher(Collected())
    for _ in range(3):
        await publisher.add(Delta("answer", "ab" * (ANSWER_CHARS_MAX // 4)))
    assert publisher.answer == "ab" * (ANSWER_CHARS_MAX // 2)


async def test_a_block_that_is_rendered_in_a_thread_is_the_same() -> None:
    short, long = "a *b*", "a *b* " * THREAD_CHARS
    for text in (short, long):
        event = await block_event("left", text, more=1)
        assert isinstance(event.data, dict)
        assert event.data["more"] == 1
        assert "<em>b</em>" in str(event.data["message"])


async def test_an_error_carries_its_code() -> None:
    outbox = Collected()
    await Publisher(outbox).publish_error(notices.REJECTED.with_number(418))
    (event,) = outbox.events
    assert isinstance(event.data, dict)
    assert {**event.data, "message": ""} == {"message": "", "reason": "rejected", "number": 418}
    assert "418" in str(event.data["message"])
