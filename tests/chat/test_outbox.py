"""The events of a dialogue while Redis is unavailable: in virtual time, with a broker that can be blocked."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.chat.broker import LeaseLost
from proxy.chat.event import Event
from proxy.chat.memory_broker import MemoryBroker
from proxy.chat.outbox import CLOSING_SECONDS, OUTAGE_SECONDS, OUTBOX_BYTES, Interruption, Outbox
from proxy.redis_connection import StoreUnavailable
from tests.credentials.fakes import virtually

LARGE = "x" * (OUTBOX_BYTES // 5)


class Blocked(MemoryBroker):
    """A broker whose Redis is unavailable until `back` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.back = asyncio.Event()
        self.published: list[object] = []

    async def publish(self, channel: str, event: Event, **options: Any) -> str:
        await self.back.wait()
        self.published.append(event.data)
        return await super().publish(channel, event, **options)


class Lost(MemoryBroker):
    """A broker that no longer accepts events of this dialogue."""

    async def publish(self, channel: str, event: Event, **options: Any) -> str:
        raise LeaseLost


@contextlib.asynccontextmanager
async def running(broker: MemoryBroker) -> AsyncIterator[tuple[Outbox, list[Interruption]]]:
    """Run an outbox; yield it with the interruptions that it reports."""
    troubles: list[Interruption] = []
    outbox = Outbox(broker, "c", "holder", troubles.append)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(outbox.run())
        yield outbox, troubles
        sending.cancel()


@virtually
async def test_events_wait_in_order_while_redis_is_unavailable() -> None:
    broker = Blocked()
    async with running(broker) as (outbox, troubles):
        for number in range(500):
            await outbox.put(Event(number))
        await asyncio.sleep(OUTAGE_SECONDS - 1)
        broker.back.set()
        await outbox.sent()
    assert broker.published == [*range(500)]
    assert troubles == []


@virtually
async def test_after_too_long_an_outage_the_answer_ends_and_its_end_is_published_later() -> None:
    broker = Blocked()
    async with running(broker) as (outbox, troubles):
        await outbox.put(Event("text"))
        await asyncio.sleep(OUTAGE_SECONDS + 1)
        assert troubles == ["outage"]
        for number in range(8):  # they exceed the limit, but no event waits any more
            await outbox.put(Event([number, LARGE]))
        await asyncio.sleep(3600)
        broker.back.set()
        await outbox.sent()
    assert len(broker.published) == 9
    assert troubles == ["outage"]


@virtually
async def test_the_model_is_not_read_while_too_many_bytes_wait() -> None:
    broker = Blocked()
    async with running(broker) as (outbox, _):
        for _ in range(5):
            await outbox.put(Event(LARGE))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await outbox.put(Event("one too many"))
        broker.back.set()
        await outbox.put(Event("last"))
        await outbox.sent()
    assert broker.published == [*[LARGE] * 5, "last"]


@virtually
async def test_a_dialogue_that_another_process_has_ended_publishes_nothing_more() -> None:
    async with running(Lost()) as (outbox, troubles):
        await outbox.put(Event("text"))
        with pytest.raises(LeaseLost):
            await outbox.sent()
        with pytest.raises(LeaseLost):
            await outbox.put(Event("more"))
    assert troubles == ["lost"]


@virtually
async def test_a_service_that_shuts_down_waits_for_redis_only_briefly() -> None:
    loop = asyncio.get_running_loop()
    async with running(Blocked()) as (outbox, troubles):
        await outbox.put(Event("text"))
        await asyncio.sleep(1)
        start = loop.time()
        outbox.close()
        with pytest.raises(StoreUnavailable):
            await outbox.sent()
        assert loop.time() - start == pytest.approx(CLOSING_SECONDS)
    assert troubles == ["lost"]
