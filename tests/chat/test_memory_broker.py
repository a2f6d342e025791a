"""The broker in memory: its clock, and its memory use."""

import contextlib
import gc
import tracemalloc

import pytest

from proxy.chat.broker import Broker
from proxy.chat.event import START, Event, parse_id
from proxy.chat.memory_broker import MemoryBroker
from tests.chat.conftest import OpenStores
from tests.chat.readers import take_data

READERS = 300
BYTES_A_READER = 6 * 1024


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_ids_grow_even_if_the_clock_stops_or_is_set_back() -> None:
    clock = Clock()
    broker = MemoryBroker(clock=clock)
    ids = []
    for step in (0.0, 0.0, -5.0, 0.0, 10.0):
        clock.now += step
        ids.append(await broker.publish("c", Event("x")))
    assert ids == [
        "1800000000000-0", "1800000000000-1", "1800000000000-2", "1800000000000-3", "1800000005000-0",
    ]  # fmt: skip


async def test_an_id_of_an_earlier_process_replays_all_stored_events() -> None:
    broker = MemoryBroker()
    await broker.publish("c", Event("x"))
    async with broker.subscribe("c", "1700000000000-5") as reader:
        assert await take_data(reader, 1) == ["x"]


async def test_each_event_extends_the_life_of_its_channel() -> None:
    clock = Clock()
    broker = MemoryBroker(expire=10, clock=clock)
    await broker.publish("c", Event(1))
    await broker.publish("silent", Event(1))
    clock.now += 9
    await broker.publish("c", Event(2))
    clock.now += 1
    assert not await broker.has_events("silent")
    async with broker.subscribe("c", "0-0") as reader:
        assert await take_data(reader, 2) == [1, 2]
    clock.now += 9
    assert not await broker.has_events("c")


async def test_the_longest_silent_channel_is_evicted() -> None:
    broker = MemoryBroker(total=10)
    for channel in ("a", "b", "a", "c"):
        for _ in range(3):
            await broker.publish(channel, Event("x"))
    assert [await broker.has_events(channel) for channel in ("a", "b", "c")] == [True, False, True]


async def test_the_visitor_who_stores_most_makes_room() -> None:
    broker = MemoryBroker(total_bytes=20_000, visitor_of=lambda channel: channel[0])
    for channel in ("a1", "b1", "b2"):
        await broker.publish(channel, Event("x" * 100))
    for number in range(200):
        await broker.publish(f"z{number}", Event("x" * 400))
    assert [await broker.has_events(channel) for channel in ("a1", "b1", "b2")] == [True] * 3
    assert not await broker.has_events("z0")
    assert await broker.has_events("z199")


async def test_copies_make_room_at_the_cost_of_their_own_visitor() -> None:
    broker = MemoryBroker(total_bytes=20_000, visitor_of=lambda channel: channel[0])
    await broker.publish("a", Event("x" * 100))
    for _ in range(20):
        last = await broker.publish("z", Event("x" * 400))
    before = parse_id(last) or START
    for number in range(50):
        assert await broker.copy("z" if number == 0 else f"z{number - 1}", f"z{number}", before) is not None
    assert await broker.has_events("a")


async def test_a_channel_over_its_own_limit_evicts_no_other() -> None:
    broker = MemoryBroker(kept=3, total=6)
    await broker.publish("a", Event("x"))
    for _ in range(50):
        await broker.publish("b", Event("x"), mark="turn")
    assert await broker.has_events("a")


async def test_a_burst_does_not_cut_a_reader_that_reads() -> None:
    broker = MemoryBroker(queue=4)
    async with broker.subscribe("c", None) as reader:
        for number in range(20):
            await broker.publish("c", Event(number))
            assert await take_data(reader, 1) == [number]


async def test_thousands_of_readers_are_cheap_and_leave_nothing(open_both: OpenStores) -> None:
    async with open_both() as (here, _):
        await bytes_of_readers(here.broker, 10)  # loads everything that is loaded lazily
        assert await bytes_of_readers(here.broker, READERS) / READERS < BYTES_A_READER


async def bytes_of_readers(broker: Broker, count: int) -> int:
    """Return the memory of this many readers, each of a separate channel."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        async with contextlib.AsyncExitStack() as stack:
            for number in range(count):
                await stack.enter_async_context(broker.subscribe(f"channel-{number}", "0-0"))
            gc.collect()
            during, _ = tracemalloc.get_traced_memory()
        return during - before
    finally:
        tracemalloc.stop()


async def test_bytes_are_bounded_as_well_as_events() -> None:
    broker = MemoryBroker(size=1000, total_bytes=2500)
    for number in range(20):
        await broker.publish("a", Event({"message": "x" * 300, "n": number}))
    async with broker.subscribe("a", "0-0") as reader:
        first = await reader.get()
    assert isinstance(first.data, dict)
    assert first.data["n"] == 18  # two of them fit
    for channel in "bcd":
        for _ in range(3):
            await broker.publish(channel, Event({"message": "x" * 300}))
    assert [await broker.has_events(channel) for channel in "abcd"] == [False, True, True, True]
    await broker.publish("e", Event({"message": "x" * 5000}))
    assert await broker.has_events("e")  # one event is kept, however large


async def test_a_copy_encodes_no_event_again_and_counts_like_its_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    broker = MemoryBroker(clock=clock, expire=60, total=50)

    async def later(source: str, target: str, before: str) -> int | None:
        copied = await broker.copy(source, target, parse_id(before) or START)
        return None if copied is None else copied.later

    for _ in range(10):
        await broker.publish("first", Event("x"))
    ids = [await broker.publish("source", Event("x"), mark="turn") for _ in range(20)]
    clock.now += 50
    with monkeypatch.context() as patched:
        patched.setattr(Event, "encode", lambda _: pytest.fail("encoding takes 10 us an event"))
        assert await later("source", "copy", ids[15]) == 5
        assert await later("source", "none", ids[0]) == 20
        assert await later("source", "none", ids[10]) == 10
    held = {channel: await broker.has_events(channel) for channel in ("first", "source", "copy", "none")}
    assert held == {"first": False, "source": True, "copy": True, "none": True}, "the oldest makes room"
    clock.now += 20
    held = {channel: await broker.has_events(channel) for channel in ("source", "copy", "none")}
    assert held == {"source": False, "copy": True, "none": True}
    clock.now += 50
    for channel in ("copy", "none"):
        assert not await broker.has_events(channel)
    ids = [await broker.publish("new", Event("x")) for _ in range(50)]
    assert await later("new", "all", ids[-1]) == 0
    assert await broker.has_events("all")
    assert not await broker.has_events("new")
