"""Signals that arrive before a service runs are not lost, and do not end it."""

import asyncio
import os
import signal

import pytest

from proxy.server.signals import Stop, handled_signals
from tests.pace import PATIENCE


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_loop_runs_sets_its_event_later(number: signal.Signals) -> None:
    async def events() -> tuple[bool, bool]:
        return signals.stop().requested.is_set(), signals.hangup().is_set()

    before = signal.getsignal(number)
    with handled_signals() as signals:
        os.kill(os.getpid(), number)
        found = asyncio.run(events())
    assert found == (number != signal.SIGHUP, number == signal.SIGHUP)
    assert signal.getsignal(number) == before


async def test_a_signal_while_the_loop_runs_sets_its_event() -> None:
    with handled_signals() as signals:
        stop, hangup = signals.stop(), signals.hangup()
        assert not stop.requested.is_set()
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(PATIENCE):
            await hangup.wait()
        assert not stop.requested.is_set()


@pytest.mark.parametrize(
    ("numbers", "without_delay"),
    [
        ([signal.SIGTERM], False),
        ([signal.SIGINT], True),
        ([signal.SIGTERM, signal.SIGTERM], True),
        ([signal.SIGTERM, signal.SIGINT], True),
    ],
)
def test_sigint_and_a_second_signal_hurry(numbers: list[signal.Signals], *, without_delay: bool) -> None:
    stop = Stop()
    for number in numbers:
        stop.signalled(number)
    assert (stop.requested.is_set(), stop.without_delay.is_set()) == (True, without_delay)
