"""Threads for long repairs: a few at a time, and no caller keeps the others out."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from proxy.upstream.repair_threads import THREADS_MAX, RepairThreads
from proxy.upstream.repaired import INLINE_BYTES_MAX, ResponsePrefix
from proxy.wire.endpoints import Shape
from proxy.wire.repairs import Call, resolve
from tests.loopback import until
from tests.pace import PATIENCE


class Workshop:
    """Calls that wait in their threads until the test lets them end."""

    def __init__(self) -> None:
        self.threads = RepairThreads()
        self.begun: list[str] = []
        self.gates: dict[str, threading.Event] = {}
        self.tasks: dict[str, asyncio.Task[str]] = {}

    def ask(self, caller: str, name: str) -> None:
        """Let a caller wait for a call."""
        gate = self.gates[name] = threading.Event()

        def work() -> str:
            self.begun.append(name)
            gate.wait(PATIENCE)
            return name

        self.tasks[name] = asyncio.get_running_loop().create_task(self.threads.run(caller, work))

    async def finish(self, name: str, begins: str | None = None) -> None:
        """Let a call end, and wait until another one has begun."""
        self.gates[name].set()
        assert await self.tasks[name] == name
        if begins is not None:
            await until(lambda: begins in self.begun)


@pytest.fixture
async def workshop() -> AsyncIterator[Workshop]:
    shop = Workshop()
    yield shop
    for gate in shop.gates.values():
        gate.set()
    await asyncio.gather(*shop.tasks.values(), return_exceptions=True)
    await until(lambda: shop.threads._running == 0)
    assert shop.threads._waiting == {}


async def flooded(shop: Workshop, calls: int = 6) -> None:
    """Let one caller occupy all threads, and wait for more."""
    for number in range(calls):
        shop.ask("greedy", f"greedy-{number}")
    await until(lambda: len(shop.begun) == THREADS_MAX)


async def test_only_a_few_repairs_run_at_a_time(workshop: Workshop) -> None:
    await flooded(workshop)
    for number in range(4):
        await workshop.finish(f"greedy-{number}", begins=f"greedy-{number + THREADS_MAX}")
        assert len(workshop.begun) == number + 1 + THREADS_MAX


async def test_callers_take_turns(workshop: Workshop) -> None:
    await flooded(workshop)
    for caller in "ab":
        for number in range(2):
            workshop.ask(caller, f"{caller}-{number}")
    order = ["greedy-0", "greedy-1", "greedy-2", "a-0", "b-0", "greedy-3", "a-1", "b-1", "greedy-4"]
    for done, next_one in zip(order, order[THREADS_MAX:], strict=False):
        await workshop.finish(done, begins=next_one)
    assert workshop.begun == order


async def test_a_flood_of_one_caller_leaves_the_default_executor_free() -> None:
    release, begun = threading.Event(), list[int]()

    def held(_received: bytes, body: bytes) -> None:
        begun.append(len(body))
        release.wait(PATIENCE)

    threads = RepairThreads()
    prefixes = [
        ResponsePrefix(resolve(["common"]), Call(Shape.CHAT), b"application/json", threads, "greedy")
        for _ in range(64)
    ]
    for prefix in prefixes:
        prefix.feed(b" " * (INLINE_BYTES_MAX + 1))
        prefix._write_whole = held  # type: ignore[assignment, method-assign]
    async with asyncio.TaskGroup() as group:
        for prefix in prefixes:
            group.create_task(prefix.start(1 << 20))
        await until(lambda: bool(begun))
        async with asyncio.timeout(PATIENCE):
            assert await asyncio.to_thread(lambda: "rendered") == "rendered"
        assert len(begun) <= THREADS_MAX
        release.set()


async def test_a_caller_who_leaves_gives_up_its_turn(workshop: Workshop) -> None:
    await flooded(workshop, THREADS_MAX)
    workshop.ask("a", "a-0")
    workshop.ask("b", "b-0")
    await until(lambda: len(workshop.threads._waiting) == 2)
    workshop.tasks["a-0"].cancel()
    await workshop.finish("greedy-0", begins="b-0")
    assert "a-0" not in workshop.begun


async def test_a_turn_that_comes_with_the_cancellation_goes_to_the_next(workshop: Workshop) -> None:
    await flooded(workshop, THREADS_MAX)
    workshop.ask("a", "a-0")
    workshop.ask("b", "b-0")
    await until(lambda: len(workshop.threads._waiting) == 2)
    workshop.threads._running += 1  # a third place, which is given to a caller that leaves at this moment
    workshop.threads._release()
    workshop.tasks["a-0"].cancel()
    await until(lambda: "b-0" in workshop.begun)
    assert "a-0" not in workshop.begun


@pytest.mark.parametrize("waits_twice", [True, False])
async def test_a_place_freed_right_after_a_cancellation_goes_to_the_next(
    workshop: Workshop, *, waits_twice: bool
) -> None:
    await flooded(workshop, THREADS_MAX)
    workshop.ask("a", "a-0")
    workshop.ask("b", "b-0")
    if waits_twice:
        workshop.ask("a", "a-1")
    await until(lambda: sum(map(len, workshop.threads._waiting.values())) == 2 + waits_twice)
    workshop.threads._running += 1
    workshop.tasks["a-0"].cancel()
    workshop.threads._release()  # before the cancelled task runs
    await until(lambda: "b-0" in workshop.begun)
    assert "a-0" not in workshop.begun


async def test_a_place_freed_right_after_the_last_waiter_left_is_free(workshop: Workshop) -> None:
    await flooded(workshop, THREADS_MAX)
    workshop.ask("a", "a-0")
    await until(lambda: len(workshop.threads._waiting) == 1)
    workshop.threads._running += 1
    workshop.tasks["a-0"].cancel()
    workshop.threads._release()
    assert workshop.threads._running == THREADS_MAX


async def test_a_repair_that_nobody_waits_for_keeps_its_place_until_it_ends(workshop: Workshop) -> None:
    await flooded(workshop, THREADS_MAX)
    workshop.ask("a", "a-0")
    workshop.tasks["greedy-0"].cancel()
    await asyncio.wait([workshop.tasks["greedy-0"]])
    assert "a-0" not in workshop.begun
    workshop.gates["greedy-0"].set()
    await until(lambda: "a-0" in workshop.begun)


@pytest.mark.parametrize("fails", [True, False])
async def test_a_failure_frees_its_place(monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> None:
    """A call that raises, and a thread that cannot be started."""

    def fail() -> None:
        raise LookupError

    def refuse(_call: Callable[[], object], _name: str) -> None:
        raise RuntimeError

    threads = RepairThreads()
    if not fails:
        monkeypatch.setattr("proxy.upstream.repair_threads.start_call", refuse)
    for _ in range(3 * THREADS_MAX):
        with pytest.raises(LookupError if fails else RuntimeError):
            await threads.run("a", fail)
