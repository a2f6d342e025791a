"""Event streams: what a reader gets beside events, and when its stream ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.chat.broker import BrokerClosed, SlowReader
from proxy.chat.event import Event
from proxy.chat.memory_broker import MemoryBroker
from proxy.chat.readers import OPENING, Readers

PING = b": ping\n\n"


class Silent:
    """A subscription on which nothing comes, or which ends."""

    def __init__(self, end: Exception | None = None) -> None:
        self._end = end

    async def get(self) -> Event:
        if self._end is not None:
            raise self._end
        await asyncio.Event().wait()
        raise AssertionError


async def rest(stream: AsyncIterator[bytes]) -> list[bytes]:
    async with asyncio.timeout(5):
        return [piece async for piece in stream]


async def test_the_opening_comes_at_once_and_events_as_they_are_published() -> None:
    broker = MemoryBroker()
    async with broker.subscribe("c", None) as subscription:
        stream = Readers().stream(subscription)
        assert await anext(stream) == OPENING == b"retry:2000\n\n: open\n\n"
        name = await broker.publish("c", Event({"message": "你"}, "message_event"))
        expected = f'event:message_event\ndata:{{"message": "\\u4f60"}}\nid:{name}\n\n'
        assert await anext(stream) == expected.encode()
        await broker.close()
        assert await rest(stream) == []


async def test_silence_is_broken_by_comments_until_the_stream_is_old() -> None:
    stream = Readers(heartbeat=0.01, age=(0.05, 0.06)).stream(Silent())

    opening, *pings = await rest(stream)

    assert opening == OPENING
    assert 1 <= len(pings) <= 6
    assert {*pings} == {PING}


@pytest.mark.parametrize("end", [SlowReader(), BrokerClosed()])
async def test_a_slow_reader_is_cut_and_a_closed_broker_ends_all(end: Exception) -> None:
    assert await rest(Readers().stream(Silent(end))) == [OPENING]


async def test_the_end_of_the_service_ends_every_stream_and_lets_none_begin() -> None:
    readers = Readers()
    streams = [readers.stream(Silent()) for _ in range(50)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(rest(stream)) for stream in streams]
        await asyncio.sleep(0)
        readers.send_away()
    assert [task.result() for task in tasks] == [[OPENING]] * 50
    assert await rest(readers.stream(Silent())) == [OPENING]


async def test_the_age_is_drawn_so_that_not_all_come_back_at_once() -> None:
    readers = Readers(heartbeat=10, age=(0.01, 0.2))
    loop = asyncio.get_running_loop()

    async def lasted() -> float:
        began = loop.time()
        await rest(readers.stream(Silent()))
        return loop.time() - began

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(lasted()) for _ in range(20)]
    ages = [task.result() for task in tasks]
    assert max(ages) - min(ages) > 0.05


async def test_readers_whose_heartbeats_are_due_at_this_moment_are_sent_away_too() -> None:
    readers = Readers(heartbeat=0.05)

    async def read() -> None:
        async with MemoryBroker().subscribe("c", None) as subscription:
            async for _ in readers.stream(subscription):
                pass

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(read())
        await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        due = min(handle.when() for handle in loop._scheduled)  # type: ignore[attr-defined]
        loop.call_at(due, readers.send_away)
        loop.call_at(due + 0.01, readers.send_away)  # twice is as good as once
