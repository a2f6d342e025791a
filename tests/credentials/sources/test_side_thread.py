"""Blocking calls in threads: their results are returned, and a call that hangs delays no other."""

import asyncio
import sys
import threading

import pytest

from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.side_thread import SideThread
from tests.cli.processes import read_until, running
from tests.pace import PATIENCE


async def test_a_result_is_returned_and_an_error_is_raised() -> None:
    side = SideThread()
    assert await side.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await side.run(lambda: 1 // 0)
    assert await side.run(threading.get_ident) != threading.get_ident()


async def test_a_hanging_call_is_abandoned_and_not_shared() -> None:
    side, go_on = SideThread(), threading.Event()
    hanging = asyncio.ensure_future(side.run(go_on.wait))  # noqa: TID251
    await asyncio.sleep(0)
    hanging.cancel()
    await asyncio.wait({hanging})
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(TokenFetchError, match="has not returned yet"):
            await side.run(lambda: 1)
    assert threading.active_count() == before
    go_on.set()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                assert await side.run(lambda: 2) == 2
                return
            except TokenFetchError:
                await asyncio.sleep(0)


HANGING = """
import asyncio, threading
from proxy.credentials.sources.side_thread import SideThread
async def main():
    try:
        async with asyncio.timeout(0.05):
            await SideThread().run(threading.Event().wait)
    except TimeoutError:
        print("given up", flush=True)
asyncio.run(main())
"""


async def test_a_process_ends_even_if_a_call_hangs() -> None:
    async with running(sys.executable, "-c", HANGING) as process:
        await read_until(process, "given up")
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
