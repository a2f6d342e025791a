"""Waiters share a result."""

import asyncio
import gc
from typing import Any

import pytest

from proxy.credentials.tasks import Waiters
from proxy.credentials.token import Token
from proxy.errors import TokenUnavailable
from tests.credentials.fakes import build_token, failure_of, pass_time, virtually


def start(waiters: Waiters, count: int, timeout: float = 10.0) -> list["asyncio.Task[Token]"]:
    loop = asyncio.get_running_loop()
    return [loop.create_task(waiters.join(timeout)) for _ in range(count)]


@virtually
async def test_all_get_the_same_credential() -> None:
    waiters, token = Waiters(10), build_token()
    tasks = start(waiters, 3)
    await pass_time(1.0)
    waiters.publish(token)
    assert await asyncio.gather(*tasks) == [token] * 3


@virtually
async def test_each_gets_the_failure_as_its_own_exception() -> None:
    waiters = Waiters(10)
    tasks = start(waiters, 3)
    await pass_time(1.0)
    waiters.fail(lambda: TokenUnavailable(7.0, reason="the issuer is down"))
    errors = [await failure_of(asyncio.wait_for(task, None)) for task in tasks]
    assert {(error.headers["Retry-After"], error.reason) for error in errors} == {("7", "the issuer is down")}
    assert len({id(error) for error in errors}) == 3


@virtually
async def test_an_outcome_is_for_current_waiters_and_not_for_later_ones() -> None:
    waiters = Waiters(10)
    waiters.publish(build_token("early"))
    tasks = start(waiters, 1)
    await pass_time(1.0)
    waiters.publish(build_token("late"))
    waiters.fail(TokenUnavailable)
    assert (await tasks[0]).secret.reveal() == "late"


@pytest.mark.parametrize("timeout", [2.0, 0.0, -1.0])
@virtually
async def test_each_waiter_has_its_own_timeout(timeout: float) -> None:
    waiters = Waiters(2)
    patient = start(waiters, 1)
    began = asyncio.get_running_loop().time()
    error = await failure_of(waiters.join(timeout))
    assert error.reason == "waited too long for a token"
    assert asyncio.get_running_loop().time() - began == pytest.approx(max(timeout, 0.0))
    waiters.publish(build_token())
    await asyncio.gather(*patient)


@virtually
async def test_a_waiter_that_leaves_frees_its_place() -> None:
    waiters = Waiters(2)
    gone, patient = start(waiters, 2)
    await pass_time(1.0)
    assert (await failure_of(waiters.join(10.0))).reason == "too many callers are waiting for a token"
    gone.cancel()
    await pass_time(0.0)
    late = start(waiters, 1)
    await pass_time(0.0)
    waiters.publish(build_token())
    assert gone.cancelled()
    assert await patient is await late[0]


@virtually
async def test_an_outcome_during_a_cancellation_logs_no_error() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    waiters = Waiters(10)
    cancelled_first, failed_first = start(waiters, 2)
    await pass_time(1.0)
    cancelled_first.cancel()
    waiters.fail(TokenUnavailable)
    failed_first.cancel()
    await asyncio.wait({cancelled_first, failed_first})
    assert cancelled_first.cancelled()
    assert failed_first.cancelled()
    del waiters, cancelled_first, failed_first
    gc.collect()
    assert complaints == []
