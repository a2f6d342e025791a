"""Event streams: comments between events, and the end of a stream."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.chat.broker import BrokerClosed, SlowReader
from proxy.chat.event import Event
from proxy.chat.memory_broker import MemoryBroker
from proxy.chat.readers import EVENTS_IN_A_ROW, OPENING, Readers
from proxy.task_groups import task_group
from tests.pace import PATIENCE
from tests.virtual_time import run_virtually

PING = b": ping\n\n"


class Silent:
    """A subscription without events, or one that ends."""

    def __init__(self, end: Exception | None = None) -> None:
        self._end = end

    async def get(self) -> Event:
        if self._end is not None:
            raise self._end
        await asyncio.Event().wait()
        raise AssertionError


async def listed(stream: AsyncIterator[bytes]) -> list[bytes]:
    return [piece async for piece in stream]


async def rest(stream: AsyncIterator[bytes]) -> list[bytes]:
    async with asyncio.timeout(PATIENCE):
        return await listed(stream)


async def test_the_opening_is_sent_at_once_and_events_when_published() -> None:
    broker = MemoryBroker()
    async with broker.subscribe("c", None) as subscription:
        stream = Readers().stream(subscription)
        assert await anext(stream) == OPENING == b"retry:2000\n\n: open\n\n"
        name = await broker.publish("c", Event({"message": "你"}, "message_event"))
        expected = f'event:message_event\ndata:{{"message": "\\u4f60"}}\nid:{name}\n\n'
        assert await anext(stream) == expected.encode()
        await broker.close()
        assert await rest(stream) == []


async def test_other_tasks_run_while_stored_events_are_read() -> None:
    broker, turns = MemoryBroker(), 0
    for _ in range(10 * EVENTS_IN_A_ROW):
        await broker.publish("c", Event("x"))

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with broker.subscribe("c", "0-0") as subscription, task_group() as group:
        counting = group.create_task(count_turns())
        stream = Readers().stream(subscription)
        for _ in range(10 * EVENTS_IN_A_ROW):
            await anext(stream)
        counting.cancel()
    assert turns >= 9


def test_comments_are_sent_during_silence_until_the_stream_is_old() -> None:
    stream = Readers(heartbeat=10, age=(55, 55)).stream(Silent())
    assert run_virtually(lambda: listed(stream)) == [OPENING, PING, PING, PING, PING, PING]


@pytest.mark.parametrize("end", [SlowReader(), BrokerClosed()])
async def test_a_slow_reader_is_cut_and_a_closed_broker_ends_all(end: Exception) -> None:
    assert await rest(Readers().stream(Silent(end))) == [OPENING]


async def test_closing_ends_every_stream_and_allows_no_new_one() -> None:
    readers = Readers()
    streams = [readers.stream(Silent()) for _ in range(50)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(rest(stream)) for stream in streams]
        await asyncio.sleep(0)
        readers.close_all()
    assert [task.result() for task in tasks] == [[OPENING]] * 50
    assert await rest(readers.stream(Silent())) == [OPENING]


def test_the_maximum_age_is_random_so_that_readers_reconnect_apart() -> None:
    readers = Readers(heartbeat=1000, age=(100, 200))

    async def lasted() -> float:
        began = asyncio.get_running_loop().time()
        await listed(readers.stream(Silent()))
        return asyncio.get_running_loop().time() - began

    async def lasted_each() -> list[float]:
        return await asyncio.gather(*(lasted() for _ in range(20)))

    ages = run_virtually(lasted_each)
    assert 100 <= min(ages) < max(ages) <= 200


def test_closing_also_ends_streams_whose_heartbeat_is_due_at_that_moment() -> None:
    readers = Readers(heartbeat=10)
    faults: list[object] = []

    async def read() -> None:
        async with MemoryBroker().subscribe("c", None) as subscription:
            await listed(readers.stream(subscription))

    async def close_all_at_the_heartbeat() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(read())
            due = loop.time() + 10
            loop.call_at(due + 5e-10, readers.close_all)  # in the same iteration, after the heartbeats
            loop.call_at(due + 1, readers.close_all)  # a second call does nothing

    run_virtually(close_all_at_the_heartbeat)
    assert faults == []
