"""Blocking calls in daemon threads: how their results arrive, and what one that hangs holds up."""

import asyncio
import sys
import threading

import pytest

from proxy.daemon_threads import start_call
from tests.cli.processes import read_until, running
from tests.loopback import until
from tests.pace import PATIENCE


async def test_a_result_arrives_and_an_error_is_raised() -> None:
    assert await start_call(threading.get_ident, "test") != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await start_call(lambda: 1 // 0, "test")


async def test_a_failure_that_nobody_waits_for_is_not_reported() -> None:
    reported = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
    future = start_call(lambda: 1 // 0, "test")
    await until(future.done)
    del future
    assert reported == []


HANGING = """
import asyncio, threading
from proxy.daemon_threads import start_call
release = threading.Event()
async def main():
    start_call(release.wait, "test")
    print("started", flush=True)
asyncio.run(main())
release.set()
"""


async def test_a_loop_ends_even_if_a_call_hangs() -> None:
    async with running(sys.executable, "-c", HANGING) as process:
        await read_until(process, "started")
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
