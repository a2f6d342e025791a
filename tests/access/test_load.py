"""Overload: only the callers that cause it are rejected, and requests in progress continue."""

import contextlib

import pytest

from proxy.access import Caller
from proxy.access.load import OVERLOADED_SHARE, Load
from proxy.errors import ServerOverloaded
from proxy.telemetry.loop_lag import LoopLag

MAX_LAG = 0.03
FLOODING, MODEST = Caller("flooding"), Caller("modest")


def lagging(seconds: float) -> LoopLag:
    """Return the lag of a loop that has been this late for more than a second."""
    lag = LoopLag()
    for _ in range(60):
        lag.add(seconds, now=100.0)
    return lag


def begin(load: Load, caller: Caller, times: int) -> None:
    """Start requests, all of which are accepted."""
    for _ in range(times):
        load.begin(caller, max_lag=0)


def test_no_request_is_rejected_while_the_loop_is_on_time() -> None:
    load = Load(lagging(MAX_LAG / 2))
    begin(load, FLOODING, 100)
    load.begin(FLOODING, MAX_LAG)


def test_no_request_is_rejected_without_a_limit() -> None:
    load = Load(lagging(10.0))
    begin(load, FLOODING, 100)
    load.begin(FLOODING, 0)


def test_a_single_caller_is_rejected_under_overload() -> None:
    load = Load(lagging(MAX_LAG))
    begin(load, FLOODING, 1)
    with pytest.raises(ServerOverloaded) as refused:
        load.begin(FLOODING, MAX_LAG)
    assert refused.value.status == 503
    assert refused.value.headers["Retry-After"] == "1"


def test_a_flood_from_one_caller_does_not_affect_another() -> None:
    load = Load(lagging(MAX_LAG))
    begin(load, FLOODING, 100)
    for _ in range(50):
        load.begin(MODEST, MAX_LAG)
    with pytest.raises(ServerOverloaded):
        load.begin(FLOODING, MAX_LAG)


def test_callers_with_equal_loads_are_rejected_equally() -> None:
    load = Load(lagging(MAX_LAG))
    begin(load, FLOODING, 10)
    begin(load, MODEST, 10)
    for caller in (FLOODING, MODEST):
        with pytest.raises(ServerOverloaded):
            load.begin(caller, MAX_LAG)


def test_streams_that_run_do_not_excuse_a_flood_of_another_caller() -> None:
    load = Load(lagging(MAX_LAG))
    begin(load, MODEST, 100)
    for _ in range(100):
        load.begin_response(MODEST)
    begin(load, FLOODING, 10)
    with pytest.raises(ServerOverloaded):
        load.begin(FLOODING, MAX_LAG)
    load.begin(MODEST, MAX_LAG)


def test_finished_requests_reduce_the_load() -> None:
    load = Load(lagging(MAX_LAG))
    begin(load, FLOODING, 2)
    for _ in range(2):
        load.begin_response(FLOODING)
        load.end(FLOODING)
    load.begin(FLOODING, MAX_LAG)


def test_the_limit_follows_the_lag() -> None:
    lag = lagging(MAX_LAG)
    load = Load(lag)
    begin(load, FLOODING, 100)
    with pytest.raises(ServerOverloaded):
        load.begin(FLOODING, MAX_LAG)
    for _ in range(100):
        load.begin_response(FLOODING)
    begun = 0
    for _ in range(200):  # on time, and the limit is used
        lag.add(0.0, now=100.0)
        with contextlib.suppress(ServerOverloaded):
            while True:
                load.begin(FLOODING, MAX_LAG)
                begun += 1
    assert 200 <= begun <= 251  # half of the first waiting requests, and one more each time
    for _ in range(50):
        lag.add(MAX_LAG, now=100.0)
    for _ in range(begun - 2):
        load.begin_response(FLOODING)
    with pytest.raises(ServerOverloaded):  # now two waiting requests are too many
        load.begin(FLOODING, MAX_LAG)
    load.begin(MODEST, MAX_LAG)


def test_a_burst_is_not_an_overload() -> None:
    lag = lagging(0.0)
    lag.add(0.4, now=100.0)
    assert 0 < lag.late_share(MAX_LAG) < OVERLOADED_SHARE


def test_the_overload_ends_when_the_loop_is_on_time_again() -> None:
    lag = lagging(MAX_LAG)
    assert lag.late_share(MAX_LAG) > OVERLOADED_SHARE
    for _ in range(30):
        lag.add(0.0, now=100.0)
    assert lag.late_share(MAX_LAG) < OVERLOADED_SHARE


def test_a_loop_that_is_very_late_is_overloaded_at_once() -> None:
    lag = lagging(0.0)
    lag.add(2.0, now=100.0)
    assert lag.late_share(MAX_LAG) > OVERLOADED_SHARE
