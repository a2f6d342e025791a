"""Waiters share a result."""

import asyncio
import gc
from collections.abc import Awaitable
from typing import Any

import pytest

from proxy.errors import ProxyError
from proxy.shared_tasks import Waiters
from tests.credentials.fakes import pass_time, virtually


def reject(reason: str) -> ProxyError:
    return ProxyError(reason=reason)


def start(waiters: Waiters[str], count: int, timeout: float = 10.0) -> list["asyncio.Task[str]"]:
    loop = asyncio.get_running_loop()
    return [loop.create_task(waiters.join(timeout)) for _ in range(count)]


async def failure_of(waiting: Awaitable[object]) -> ProxyError:
    """Return the error of a waiter that must get no result."""
    with pytest.raises(ProxyError) as failure:
        await waiting
    return failure.value


@virtually
async def test_all_get_the_same_result() -> None:
    waiters = Waiters[str](10, reject)
    tasks = start(waiters, 3)
    await pass_time(1.0)
    waiters.publish("new")
    assert await asyncio.gather(*tasks) == ["new"] * 3


@virtually
async def test_each_gets_the_failure_as_its_own_exception() -> None:
    waiters = Waiters[str](10, reject)
    tasks = start(waiters, 3)
    await pass_time(1.0)
    waiters.fail(lambda: ProxyError(retry_after=7.0, reason="the issuer is down"))
    errors = [await failure_of(task) for task in tasks]
    assert {(error.headers["Retry-After"], error.reason) for error in errors} == {("7", "the issuer is down")}
    assert len({id(error) for error in errors}) == 3


@virtually
async def test_an_outcome_is_for_current_waiters_and_not_for_later_ones() -> None:
    waiters = Waiters[str](10, reject)
    waiters.publish("early")
    tasks = start(waiters, 1)
    await pass_time(1.0)
    waiters.publish("late")
    waiters.fail(ProxyError)
    assert await tasks[0] == "late"


@pytest.mark.parametrize("timeout", [2.0, 0.0, -1.0])
@virtually
async def test_each_waiter_has_its_own_timeout(timeout: float) -> None:
    waiters = Waiters[str](2, reject)
    patient = start(waiters, 1)
    began = asyncio.get_running_loop().time()
    error = await failure_of(waiters.join(timeout))
    assert error.reason == "waited too long"
    assert asyncio.get_running_loop().time() - began == pytest.approx(max(timeout, 0.0))
    waiters.publish("new")
    await asyncio.gather(*patient)


@virtually
async def test_a_waiter_that_leaves_frees_its_place() -> None:
    waiters = Waiters[str](2, reject)
    gone, patient = start(waiters, 2)
    await pass_time(1.0)
    assert (await failure_of(waiters.join(10.0))).reason == "too many callers are waiting"
    gone.cancel()
    await pass_time(0.0)
    late = start(waiters, 1)
    await pass_time(0.0)
    waiters.publish("new")
    assert gone.cancelled()
    assert await patient is await late[0]


@virtually
async def test_an_outcome_during_a_cancellation_logs_no_error() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    waiters = Waiters[str](10, reject)
    cancelled_first, failed_first = start(waiters, 2)
    await pass_time(1.0)
    cancelled_first.cancel()
    waiters.fail(ProxyError)
    failed_first.cancel()
    await asyncio.wait({cancelled_first, failed_first})
    assert cancelled_first.cancelled()
    assert failed_first.cancelled()
    del waiters, cancelled_first, failed_first
    gc.collect()
    assert complaints == []
