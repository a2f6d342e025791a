"""Counters in memory: they count as those of the library do, wait for nothing, and do not pile up."""

import asyncio
import random
import threading
import time

import pytest
from limits.aio.storage import MemoryStorage

from proxy.access.memory_counts import ACCOUNTS_MIN, MemoryCounts
from tests.pace import PATIENCE

PERIOD = 60
LIMIT = 5


class Clock:
    """The clocks that a test moves."""

    def __init__(self) -> None:
        self.now = 1e9
        """Seconds since the epoch."""
        self.set_by = 0.0
        """By how much the clock of the day has been set."""

    def time(self) -> float:
        """Return what the clock of the day says."""
        return self.now + self.set_by

    def elapsed(self) -> float:
        """Return the seconds since the machine was started."""
        return self.now - 9e8


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Clocks in place of the system's."""
    own = Clock()
    monkeypatch.setattr(time, "time", own.time)
    monkeypatch.setattr("proxy.access.memory_counts.elapsed", own.elapsed)
    return own


@pytest.mark.parametrize("seed", range(5))
async def test_it_counts_as_the_storage_of_the_library_does(clock: Clock, seed: int) -> None:
    drawn, ours, theirs = random.Random(seed), MemoryCounts(), MemoryStorage()
    accepted = 0
    for _ in range(300):
        clock.now += drawn.choice([0.0, drawn.uniform(0, PERIOD / 2)])
        amount = drawn.choice([1, 1, 1, 2, LIMIT, LIMIT + 1])
        key = drawn.choice("ab")
        for storage in (ours, theirs):
            start, entries = await storage.get_moving_window(key, LIMIT, PERIOD)
            window = (entries, start if entries else 0.0)
            entry = f"{key} amounts"
            before = await storage.get(entry), await storage.get_expiry(entry)
            is_accepted = await storage.acquire_entry(key, LIMIT, PERIOD, amount)
            total = await storage.incr(entry, PERIOD, amount)
            found = (*window, *before, is_accepted, total, await storage.get_expiry(entry))
            if storage is ours:
                expected = found
        accepted += is_accepted
        assert found == pytest.approx(expected, rel=0, abs=1e-4)  # seconds since the epoch are rounded
    assert 0 < accepted < 300


@pytest.mark.parametrize("set_by", [-3600.0, 3600.0])
async def test_a_clock_that_is_set_changes_no_window(clock: Clock, set_by: float) -> None:
    counts = MemoryCounts()
    for _ in range(2 * LIMIT):  # at half the allowed rate
        clock.now += 2 * PERIOD / LIMIT
        assert await counts.acquire_entry("requests", LIMIT, PERIOD)
    await counts.incr("amounts", PERIOD, 3)
    clock.set_by = set_by
    assert await counts.acquire_entry("requests", LIMIT, PERIOD)
    start, entries = await counts.get_moving_window("requests", LIMIT, PERIOD)
    assert (clock.time() - start <= PERIOD, entries) == (True, 4)
    assert await counts.get("amounts") == 3
    assert await counts.get_expiry("amounts") == clock.time() + PERIOD
    clock.now += PERIOD
    assert await counts.get("amounts") == 0
    assert await counts.get_expiry("amounts") == clock.time()


async def test_no_count_waits_for_the_threads_of_the_event_loop() -> None:
    loop, released = asyncio.get_running_loop(), threading.Event()
    busy = [loop.run_in_executor(None, released.wait) for _ in range(64)]
    counts = MemoryCounts()
    try:
        async with asyncio.timeout(PATIENCE):
            for _ in range(LIMIT):
                assert await counts.acquire_entry("a", LIMIT, PERIOD)
                await asyncio.sleep(0)  # lets tasks run that a count has started
            assert not await counts.acquire_entry("a", LIMIT, PERIOD)
    finally:
        released.set()
        await asyncio.gather(*busy)


async def test_accounts_that_have_expired_are_removed(clock: Clock) -> None:
    counts = MemoryCounts()
    for number in range(10 * ACCOUNTS_MIN):
        clock.now += 1
        await counts.acquire_entry(f"requests {number}", LIMIT, PERIOD)
        await counts.incr(f"amounts {number}", PERIOD, 3)
    assert await counts.get(f"amounts {number}") == 3
    assert await counts.reset() <= ACCOUNTS_MIN + 2
    assert await counts.get(f"amounts {number}") == 0


async def test_accounts_that_have_not_expired_are_kept(clock: Clock) -> None:
    counts = MemoryCounts()
    for number in range(3 * ACCOUNTS_MIN):
        assert await counts.acquire_entry(str(number), 1, PERIOD)
    for number in range(3 * ACCOUNTS_MIN):
        assert not await counts.acquire_entry(str(number), 1, PERIOD)
    clock.now += PERIOD + 1
    assert await counts.acquire_entry("0", 1, PERIOD)


async def test_one_account_can_be_forgotten() -> None:
    counts = MemoryCounts()
    for key in ("a", "b"):
        assert await counts.acquire_entry(key, 1, PERIOD)
    await counts.clear("a")
    assert await counts.acquire_entry("a", 1, PERIOD)
    assert not await counts.acquire_entry("b", 1, PERIOD)
    assert await counts.check()
