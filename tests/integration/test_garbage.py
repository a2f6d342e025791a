"""Exchanges are freed by reference counting: a full garbage collection would stall every stream."""

import asyncio
import contextlib
import gc
from collections.abc import Iterator

from proxy.server.http1 import Connection
from proxy.server.request_cycle import Cycle
from proxy.server.request_reader import RequestReader
from proxy.upstream.connections import GuardedConnection
from tests.conftest import RunProxy
from tests.loopback import until
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream

KINDS = (Connection, Cycle, RequestReader, GuardedConnection)
CALLS = 5


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """Disable the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive() -> int:
    """Count the existing connections and requests."""
    return sum(isinstance(each, KINDS) for each in gc.get_objects())


async def answer(talk: Conversation) -> None:
    """Send a short response, or stream until the caller leaves."""
    if b"stream" not in talk.request.body:
        await talk.answer(b"{}", "Content-Type: application/json")
        return
    await talk.start_stream()
    await talk.chunk(b'data: {"choices": []}\n\n')
    await talk.caller_left()


async def call(url: str, body: bytes) -> None:
    """Send a request, read the beginning of its response, and leave."""
    async with raw_caller(url) as caller:
        await caller.send("POST", "/v1/chat/completions", "Content-Type: application/json", body=body)
        assert (await caller.answer()).status == 200
        assert await caller.chunk() if b"stream" in body else True


async def test_closed_connections_and_exchanges_wait_for_no_collection(
    run_proxy: RunProxy,
) -> None:
    async with raw_upstream(answer) as upstream, run_proxy(upstream.url) as proxy:
        await call(proxy.url, b"{}")
        with no_collector():
            before = alive()
            for _ in range(CALLS):
                await call(proxy.url, b"{}")
                await call(proxy.url, b'{"stream": true}')
            await until(lambda: len(proxy.exchanges) == 1 + 2 * CALLS)
            await asyncio.sleep(0)
            await until(lambda: alive() <= before + CALLS)  # idle connections to the upstream
