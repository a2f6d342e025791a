"""The contract of both brokers, between two processes over Redis and within one in memory."""

import asyncio
import random

import pytest

from proxy.chat.broker import Broker, BrokerClosed, Copied, SlowReader, Subscription
from proxy.chat.event import Event, parse_id
from tests.chat.conftest import OpenStores
from tests.chat.readers import is_silent, take, take_data
from tests.pace import PATIENCE, paced


async def publish(broker: Broker, channel: str, *words: object) -> list[str]:
    """Publish texts, and return their ids."""
    return [await broker.publish(channel, Event(word, "message_event")) for word in words]


async def test_an_event_reaches_every_reader_of_its_channel_in_every_process(open_both: OpenStores) -> None:
    async with (
        open_both() as (here, there),
        here.broker.subscribe("c", None) as one,
        there.broker.subscribe("c", None) as two,
        there.broker.subscribe("other", None) as stranger,
    ):
        event = Event({"message": "<p>你好</p>"}, "message_event", retry=2000)
        name = await here.broker.publish("c", event)
        for reader in (one, two):
            assert await take(reader, 1) == [Event(event.data, event.type, name, 2000)]
        assert await is_silent(stranger)


async def test_ids_grow(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        ids = [*await publish(here.broker, "c", *range(50)), *await publish(there.broker, "c", *range(50))]
        positions = [parse_id(name) or (0, 0) for name in ids]
        assert positions == sorted({*positions})


async def test_stored_events_are_replayed_before_live_ones(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        await publish(here.broker, "c", 1, 2)
        async with there.broker.subscribe("c", "0-0") as reader:
            assert await take_data(reader, 2) == [1, 2]
            await publish(here.broker, "c", 3)
            assert await take_data(reader, 1) == [3]
            assert await is_silent(reader)


async def test_a_reconnecting_reader_gets_the_events_after_its_last_one(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        ids = await publish(here.broker, "c", *range(6))
        for place, name in enumerate(ids):
            async with there.broker.subscribe("c", name) as reader:
                assert await take_data(reader, 5 - place) == [*range(place + 1, 6)]
                assert await is_silent(reader, 0.01)


@pytest.mark.parametrize("after", [None, "", "7", "x-1", "1-1\n", f"{2**64 - 1}-{2**64 - 1}"])
async def test_without_a_position_a_reader_gets_only_live_events(
    open_both: OpenStores, after: str | None
) -> None:
    async with open_both() as (here, there):
        await publish(here.broker, "c", "before")
        async with there.broker.subscribe("c", after) as reader:
            await publish(here.broker, "c", "after")
            assert await take_data(reader, 1) == ["after"]


async def test_a_channel_without_events_is_silent_and_unknown(open_both: OpenStores) -> None:
    async with open_both() as (here, there):
        async with here.broker.subscribe("c", "0-0") as reader:
            assert await is_silent(reader)
        assert not await there.broker.has_events("c")


async def test_deleted_events_are_not_replayed_but_later_ones_are(open_both: OpenStores) -> None:
    async with open_both() as (here, there), there.broker.subscribe("c", None) as listening:
        (last,) = await publish(here.broker, "c", "old")
        assert await take_data(listening, 1) == ["old"]
        assert await there.broker.has_events("c")
        await there.broker.forget("c")
        assert not await here.broker.has_events("c")
        (later,) = await publish(here.broker, "c", "new")
        assert (parse_id(later) or (0, 0)) > (parse_id(last) or (0, 0))
        for after in ("0-0", last):
            async with there.broker.subscribe("c", after) as reader:
                assert await take_data(reader, 1) == ["new"]
        assert await take_data(listening, 1) == ["new"]


async def stored(broker: Broker, last: object) -> list[object]:
    """Return the events from the beginning up to this one."""
    async with broker.subscribe("c", "0-0") as reader:
        got = await take_data(reader, 1)
        while got[-1] != last:
            got += await take_data(reader, 1)
        return got


async def test_whole_turns_are_deleted_the_oldest_first(open_both: OpenStores) -> None:
    async with open_both(kept=2) as (here, there):
        for turn in ("a", "b", "c"):
            await here.broker.publish("c", Event(f"{turn}0"), mark="turn")
            await publish(there.broker, "c", f"{turn}1", f"{turn}2")
        assert await stored(there.broker, "c2") == ["b0", "b1", "b2", "c0", "c1", "c2"]


async def test_the_beginning_of_a_channel_is_copied_under_the_same_ids(open_both: OpenStores) -> None:
    async with open_both(kept=2) as (here, there):
        ids = []
        for turn in ("a", "b", "d"):
            ids.append(await here.broker.publish("source", Event(f"{turn}0"), mark="turn"))
            ids += await publish(here.broker, "source", f"{turn}1")
        # `a` is no longer stored
        copied_part = await there.broker.copy("source", "c", parse_id(ids[4]) or (0, 0))
        assert copied_part is not None
        assert copied_part.later == 1
        assert copied_part.bytes > 0
        assert await there.broker.copy("source", "c", parse_id(ids[4]) or (0, 0)) is None
        async with here.broker.subscribe("c", "0-0") as reader:
            copied = await take(reader, 2)
            assert [(event.data, event.id) for event in copied] == [("b0", ids[2]), ("b1", ids[3])]
            await here.broker.publish("c", Event("e0"), mark="turn")
            assert await take_data(reader, 1) == ["e0"]
        await here.broker.publish("c", Event("f0"), mark="turn")
        assert await stored(there.broker, "f0") == ["e0", "f0"]
        assert await there.broker.copy("unknown", "other", (1, 1)) == Copied(0, 0)


async def test_a_long_answer_stays_whole_and_drops_earlier_turns(open_both: OpenStores) -> None:
    async with open_both(size=100_000) as (here, there):
        for turn in ("a", "b"):
            await here.broker.publish("c", Event(turn), mark="turn")
            await publish(there.broker, "c", "x" * 40_000)
        await here.broker.publish("c", Event("long"), mark="turn")
        await publish(here.broker, "c", *range(700))
        assert (await stored(there.broker, 699))[2:] == ["long", *range(700)]
        await publish(here.broker, "c", "y" * 50_000)
        assert (await stored(there.broker, "y" * 50_000))[0] == "long"


async def test_a_turn_that_is_too_large_by_itself_loses_its_beginning(open_both: OpenStores) -> None:
    async with open_both(size=10_000) as (here, there):
        await here.broker.publish("c", Event("question"), mark="turn")
        for number in range(20):
            await publish(here.broker, "c", f"{number:02}" + "x" * 1000)
        got = await stored(there.broker, "19" + "x" * 1000)
        assert [str(word)[:2] for word in got] == [f"{number:02}" for number in range(11, 20)]
        await here.broker.publish("c", Event("z" * 20_000))
        assert await stored(there.broker, "z" * 20_000) == ["z" * 20_000]


async def test_events_expire(open_both: OpenStores) -> None:
    async with open_both(expire=paced(1.0)) as (here, there):
        await publish(here.broker, "c", 1)
        assert await there.broker.has_events("c")
        async with asyncio.timeout(PATIENCE):
            while await there.broker.has_events("c"):
                pass


async def test_a_reader_that_stops_reading_is_disconnected_and_the_others_are_not(
    open_both: OpenStores,
) -> None:
    async with (
        open_both(queue=8) as (here, there),
        there.broker.subscribe("c", None) as slow,
        there.broker.subscribe("c", None) as quick,
    ):
        for word in range(20):
            await publish(here.broker, "c", word)
            assert await take_data(quick, 1) == [word]
        with pytest.raises(SlowReader):
            await take(slow, 20)
        with pytest.raises(SlowReader):
            await slow.get()


async def test_a_disconnected_slow_reader_reconnects_without_a_gap(open_both: OpenStores) -> None:
    async with open_both(queue=8) as (here, there):
        async with there.broker.subscribe("c", None) as slow:
            await publish(here.broker, "c", "seen")
            (seen,) = await take(slow, 1)
            await publish(here.broker, "c", *range(40))
            with pytest.raises(SlowReader):
                await take(slow, 41)
        async with there.broker.subscribe("c", seen.id) as again:
            assert await take_data(again, 40) == [*range(40)]


async def test_a_timeout_while_waiting_loses_nothing(open_both: OpenStores) -> None:
    async with open_both() as (here, there), there.broker.subscribe("c", "0-0") as reader:
        got: list[object] = []

        async def read() -> None:
            while len(got) < 100:
                try:
                    async with asyncio.timeout(random.choice([0.0, 0.0005, 0.002])):
                        got.append((await reader.get()).data)
                except TimeoutError:
                    pass

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            group.create_task(read())
            await publish(here.broker, "c", *range(100))
        assert got == [*range(100)]


async def test_closing_ends_every_reader_after_the_earlier_events(open_both: OpenStores) -> None:
    async with open_both() as (here, there), there.broker.subscribe("c", "0-0") as reader:
        await publish(here.broker, "c", "last")
        (event,) = await take(reader, 1)
        assert event.data == "last"
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(ends(reader))
            await asyncio.sleep(0)
            await there.broker.close()
        assert waiting.result()
        with pytest.raises(BrokerClosed):
            await publish(there.broker, "c", "too late")
        with pytest.raises(BrokerClosed):
            async with there.broker.subscribe("c", None):
                pass


async def ends(reader: Subscription) -> bool:
    """Return whether a reader receives `BrokerClosed`."""
    try:
        await take(reader, 1)
    except BrokerClosed:
        return True
    return False


async def test_readers_that_reconnect_at_random_get_each_event_once(
    open_both: OpenStores,
) -> None:
    dice = random.Random(5)

    async def read(broker: Broker) -> list[object]:
        got: list[object] = []
        last = "0-0"
        while len(got) < 1000:
            async with broker.subscribe("c", last) as reader:
                for _ in range(min(dice.choice([0, 1, 7, 90, 400]), 1000 - len(got))):
                    async with asyncio.timeout(PATIENCE):
                        event = await reader.get()
                    got.append(event.data)
                    last = event.id or last
        return got

    async with open_both(queue=1000) as (here, there):
        async with asyncio.timeout(2 * PATIENCE), asyncio.TaskGroup() as group:
            reading = [group.create_task(read(broker)) for broker in (here.broker, there.broker) * 5]
            await publish(here.broker, "c", *range(1000))
        for task in reading:
            assert task.result() == [*range(1000)]
