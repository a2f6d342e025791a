"""The lag of the event loop: a blocked loop is measured, and stays visible until the next scrape."""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Coroutine, Generator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.telemetry import Metrics
from proxy.telemetry.loop_lag import PERIOD_SECONDS, REQUEST_TURNS, WINDOW_SECONDS, LoopLag
from tests.loopback import until
from tests.waiting import block_loop


def samples(lag: LoopLag) -> dict[str, float]:
    """Return the samples of the lag by name and bound."""
    text = Metrics(list, lag=lag).render()[0].decode()
    return {
        sample.name.removeprefix("llm_proxy_loop_lag_") + sample.labels.get("le", ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("llm_proxy_loop_lag_")
    }


class CountedTurns:
    """A coroutine whose turns of the event loop are counted: a bare yield is one turn, a future is a wait."""

    def __init__(self, work: Coroutine[Any, None, None]) -> None:
        self.turns = 0
        self._work = work

    def __await__(self) -> Generator[Any, Any, None]:
        for waited_for in self._work.__await__():
            self.turns += waited_for is None
            yield waited_for

    async def run(self) -> None:
        """Run it in a task."""
        await self


async def test_work_that_takes_turns_with_much_other_work_is_late_though_no_turn_is_long() -> None:
    lag = LoopLag()

    async def work() -> None:
        while True:
            block_loop(0.0005)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for _ in range(10)]
        tasks.append(group.create_task(lag.measure(lambda: True)))
        await until(lambda: lag.late_share(REQUEST_TURNS * 0.005) > 0.5)
        for task in tasks:
            task.cancel()


async def test_an_idle_process_takes_no_turns_to_measure() -> None:
    lag, has_requests = LoopLag(), False
    measuring = CountedTurns(lag.measure(lambda: has_requests))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(measuring.run())
        await until(lambda: samples(lag)["seconds_count"] >= 3)
        assert measuring.turns == 0
        has_requests = True
        await until(lambda: measuring.turns >= REQUEST_TURNS)
        task.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the length of the queue")
async def test_requests_whose_connections_wait_to_be_accepted_are_late() -> None:
    queued, seconds_per_turn = 50, 0.001
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=queued))
        for _ in range(queued):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        lag = LoopLag([listener])

        async def work() -> None:
            while True:
                block_loop(seconds_per_turn)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()), group.create_task(lag.measure(lambda: False))]
            await until(lambda: lag.late_share(queued * seconds_per_turn) > 0.5)
            for task in tasks:
                task.cancel()


async def test_a_listener_that_is_closed_delays_nothing() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.close()
    lag = LoopLag([listener])
    async with asyncio.TaskGroup() as group:
        measuring = group.create_task(lag.measure(lambda: True))
        await until(lambda: samples(lag)["seconds_count"] > 0)
        measuring.cancel()


async def test_a_blocked_loop_is_measured() -> None:
    lag, blocked = LoopLag(), 0.2
    async with asyncio.TaskGroup() as group:
        measuring = group.create_task(lag.measure(lambda: True))
        await asyncio.sleep(0)
        block_loop(blocked)
        await until(lambda: lag.histogram.sum > 0)
        measuring.cancel()
    assert lag.maximum(time.monotonic()) >= blocked - PERIOD_SECONDS - 0.001
    found = samples(lag)
    assert found["max_seconds"] >= blocked - PERIOD_SECONDS - 0.001
    assert found["seconds_bucket0.1"] == found["seconds_count"] - 1


def test_the_buckets_are_cumulative_and_count_everything() -> None:
    lag = LoopLag()
    for seconds in (0.0, 0.004, 0.005, 0.006, 0.3, 60.0):
        lag.add(seconds, now=0.0)
    found = samples(lag)
    assert found["seconds_bucket0.005"] == 3
    assert found["seconds_bucket0.01"] == 4
    assert found["seconds_bucket0.25"] == 4
    assert found["seconds_bucket10.0"] == 5
    assert found["seconds_bucket+Inf"] == found["seconds_count"] == 6
    assert found["seconds_sum"] == 60.315


def test_the_longest_lag_stays_for_a_minute_and_is_then_forgotten() -> None:
    lag = LoopLag()
    lag.add(0.5, now=100.0)
    lag.add(0.1, now=100.0 + WINDOW_SECONDS)
    assert lag.maximum(100.0 + WINDOW_SECONDS) == 0.5
    assert lag.maximum(100.0 + 2 * WINDOW_SECONDS) == 0.1
    assert lag.maximum(100.0 + 3 * WINDOW_SECONDS) == 0.0


def test_a_lag_is_forgotten_although_nothing_was_measured_since() -> None:
    lag = LoopLag()
    lag.add(0.5, now=100.0)
    assert lag.maximum(100.0 + 5 * WINDOW_SECONDS) == 0.0
