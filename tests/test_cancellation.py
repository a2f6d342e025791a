"""A cancelled wait ends, whenever it is cancelled.

On Python 3.11 `asyncio.wait_for` swallows a cancellation when what it waits for ends at the same moment, and
a loop around such a wait runs on for ever. So nothing here uses it with a clock, nor does any library below,
and each wait of ours is started and cancelled ten thousand times.
"""

import ast
import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from limits import parse

import proxy
from proxy.access.counting import Counting
from proxy.chat.event import Event
from proxy.chat.live_feed import LiveFeed
from proxy.chat.memory_broker import MemoryBroker
from proxy.chat.readers import Readers
from proxy.chat.redis_channels import RedisChannels
from proxy.chat.redis_leases import RedisLeases
from proxy.credentials.sharing import FlightContext
from proxy.credentials.token import FetchedToken
from proxy.request_body import BoundedBody
from proxy.secret import Secret
from proxy.settings import Timeouts
from proxy.upstream.clock import ExchangeClock
from tests.chat.conftest import connection, shared
from tests.credentials.fakes import FakeIssuer, build_machine
from tests.credentials.sharing.fleet_members import fleet_of
from tests.pace import PATIENCE
from tests.raw_upstream import Conversation, raw_upstream
from tests.redis_server import redis_server
from tests.upstream.build import build_client, build_record, build_request, first_byte

PACKAGE: Final = Path(proxy.__file__).parent
TIMES: Final = 10_000
AT_ONCE: Final = 100
MOMENT: Final = 0.004
"""About the duration of a wait on a busy machine, over which cancellations are spread."""

Wait = Callable[[], Awaitable[object]]


def test_nothing_of_ours_uses_wait_for() -> None:
    assert [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute | ast.Name)
        and (node.attr if isinstance(node, ast.Attribute) else node.id) == "wait_for"
    ] == []


async def cancel_at_any_moment(wait: Wait, times: int = TIMES, settle: Wait | None = None) -> None:
    """Run loops around a wait, and cancel each of them once; all must end. `settle` follows each round."""

    async def for_ever() -> None:
        while True:
            await wait()
            await asyncio.sleep(0)  # a wait whose result exists does not suspend

    loop, dice = asyncio.get_running_loop(), random.Random(7)
    async with asyncio.TaskGroup() as group:
        for _ in range(times // AT_ONCE):
            tasks = [group.create_task(for_ever()) for _ in range(AT_ONCE)]
            for task in tasks:
                loop.call_later(dice.uniform(0, MOMENT), task.cancel)
            _, pending = await asyncio.wait(tasks, timeout=PATIENCE)
            for task in pending:
                task.cancel()
            assert not pending, f"{len(pending)} of {AT_ONCE} loops run on although they were cancelled"
            if settle is not None:
                await settle()


@pytest.fixture(autouse=True)
def no_wait_for_with_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reject every use of it in any library."""
    original = asyncio.wait_for

    async def refusing(waited: Any, timeout: float | None = None) -> Any:
        assert timeout is None, "asyncio.wait_for with a clock may swallow a cancellation"
        return await original(waited, timeout)

    monkeypatch.setattr(asyncio, "wait_for", refusing)


@asynccontextmanager
async def waits_for_redis(home: Path) -> AsyncIterator[dict[str, Wait]]:
    """Every wait of ours for Redis."""
    async with redis_server(home) as server, AsyncExitStack() as stack:
        redis = await stack.enter_async_context(connection(shared(server.url)))
        counting, limit = Counting(redis), parse("1000000/hour")
        feed = LiveFeed(redis)
        listened: set[str] = set()

        async def listen() -> None:
            """Run a separate feed, on which channels start and stop."""
            feed.listen(f"c{len(listened) % 7}", RedisChannels(redis, feed, RedisLeases(redis)))
            listened.add(f"c{len(listened)}")
            await feed.run()

        async def fetch() -> FetchedToken:
            await asyncio.sleep(0)
            return FetchedToken(Secret("token"), 300.0)

        (member,) = await stack.enter_async_context(fleet_of(1, server.url, FakeIssuer()))
        yield {
            "a command": partial(redis.run, "ECHO", "x"),
            "a script": partial(redis.run_script, "return 1", [], within=5.0),
            "a count": partial(counting.hit, limit, "requests", "a"),
            "a feed": listen,
            "a flight": lambda: member.sharing.obtain(fetch, FlightContext(0, None, frozenset(), 0)),
        }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["a command", "a script", "a count", "a feed", "a flight"])
async def test_a_wait_for_redis_ends_when_it_is_cancelled(name: str, tmp_path: Path) -> None:
    async with waits_for_redis(tmp_path) as waits:
        # Each round leaves connections that Redis has yet to accept. If its queue is full, connecting to a
        # Unix socket fails; Redis answers a command after it has accepted what came before.
        await cancel_at_any_moment(waits[name], settle=waits["a command"])


async def soon(call: Callable[[], object]) -> None:
    """Let something happen at about the time of the cancellation."""
    asyncio.get_running_loop().call_later(random.uniform(0, MOMENT), call)


async def of_a_token() -> None:
    """A caller waits for a token."""
    machine = build_machine(FakeIssuer(delay=MOMENT / 2, lifetime=300.0))
    await machine.get()
    await machine.close()


async def of_a_body() -> None:
    """A request body arrives."""
    body = BoundedBody(None, 1000)
    body.timeout = MOMENT
    await soon(partial(body.set_result, b"end"))
    await body.read(10)


async def of_a_first_byte() -> None:
    """A response begins in time."""
    arrived = asyncio.Event()
    await soon(arrived.set)
    await first_byte(ExchangeClock(Timeouts(first_byte=60)), arrived.wait())


async def of_a_reader() -> None:
    """A page reads events."""
    broker, readers = MemoryBroker(), Readers(heartbeat=MOMENT / 2)
    async with broker.subscribe("c", None) as subscription:
        stream = readers.stream(subscription)
        await soon(readers.close_all)
        async with asyncio.TaskGroup() as group:
            group.create_task(_publish(broker))
            async for _ in stream:
                pass
    await broker.close()


async def _publish(broker: MemoryBroker) -> None:
    await broker.publish("c", Event(1))


WAITS: Final[dict[str, Callable[[], Coroutine[Any, Any, None]]]] = {
    "a token": of_a_token,
    "a body": of_a_body,
    "a first byte": of_a_first_byte,
    "a reader": of_a_reader,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [*WAITS])
async def test_a_wait_in_this_process_ends_when_it_is_cancelled(name: str) -> None:
    await cancel_at_any_moment(WAITS[name])


@pytest.mark.timeout(300)
async def test_a_wait_for_an_upstream_ends_when_it_is_cancelled() -> None:
    async def ok(talk: Conversation) -> None:
        await talk.answer(b"ok")

    async with raw_upstream(ok) as upstream, build_client(upstream.url, max_connections=1000) as client:

        async def exchange() -> None:
            response = await client.open(build_request(), build_record())
            await response.read()
            await response.aclose()

        await cancel_at_any_moment(exchange)
