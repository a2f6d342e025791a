"""A clock that no setting of the time and no suspend of the machine stops or moves."""

import time

import pytest

from proxy.elapsed import elapsed


def test_it_is_the_clock_that_runs_while_the_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: -1.0)
    monkeypatch.setattr(time, "time", lambda: -1.0)
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= elapsed() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_without_such_a_clock_it_is_the_monotonic_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.elapsed._HAS_BOOT_TIME", False)
    monkeypatch.setattr(time, "monotonic", lambda: -1.0)
    assert elapsed() == -1.0
