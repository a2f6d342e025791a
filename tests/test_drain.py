"""Drain: running exchanges are counted, and each of them is stopped."""

import asyncio

import pytest

from proxy.drain import Drain
from proxy.errors import Draining, ProxyError
from proxy.settings import Timeouts
from proxy.upstream.clock import ExchangeClock
from tests.loopback import until
from tests.pace import PATIENCE
from tests.upstream.build import first_byte


async def test_exchanges_count_for_as_long_as_they_run() -> None:
    drain = Drain()
    assert drain.running == 0
    with drain.watch(ExchangeClock(Timeouts())):
        with drain.watch(ExchangeClock(Timeouts())):
            assert drain.running == 2
        assert drain.running == 1
    assert drain.running == 0


async def test_an_exchange_that_fails_no_longer_counts() -> None:
    drain = Drain()
    with pytest.raises(ZeroDivisionError), drain.watch(ExchangeClock(Timeouts())):
        raise ZeroDivisionError
    assert drain.running == 0


async def test_every_waiting_exchange_is_stopped() -> None:
    drain, ended = Drain(), list[ProxyError]()

    async def exchange() -> None:
        clock = ExchangeClock(Timeouts())
        with drain.watch(clock):
            try:
                await first_byte(clock, asyncio.Event().wait())
            except Draining as error:
                ended.append(error)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(exchange())
        await until(lambda: drain.running == 20)
        drain.stop_all()
    assert len(ended) == 20
    assert drain.running == 0


async def test_an_exchange_that_ends_during_stop_all_does_not_affect_the_others() -> None:
    drain, told = Drain(), list[str]()
    clocks = [ExchangeClock(Timeouts(idle=0)) for _ in range(5)]
    watches = [drain.watch(clock) for clock in clocks]
    for clock, watch in zip(clocks, watches, strict=True):
        watch.__enter__()

        def leave(error: ProxyError, watch: object = watch) -> None:
            told.append(error.code)
            assert hasattr(watch, "__exit__")
            watch.__exit__(None, None, None)

        clock.watch(leave)
    drain.stop_all()
    assert told == ["shutting_down"] * 5
    assert drain.running == 0


async def test_a_finished_exchange_is_not_stopped() -> None:
    drain, told = Drain(), list[ProxyError]()
    clock = ExchangeClock(Timeouts(idle=0))
    with drain.watch(clock):
        clock.watch(told.append)
    drain.stop_all()
    assert told == []


def test_a_new_worker_is_not_draining() -> None:
    assert not Drain().started


def test_callbacks_run_once_when_the_drain_starts() -> None:
    drain, told = Drain(), list[str]()
    drain.when_started(lambda: told.append("early"))
    assert told == []
    drain.started = True
    drain.started = True
    assert told == ["early"]
    drain.when_started(lambda: told.append("late"))
    assert told == ["early", "late"]


async def test_an_exchange_that_starts_after_stop_all_is_stopped_too() -> None:
    drain = Drain()
    drain.stop_all()
    clock = ExchangeClock(Timeouts())
    with drain.watch(clock), pytest.raises(Draining):
        await first_byte(clock, asyncio.Event().wait())
