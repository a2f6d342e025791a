"""Overload: open streams continue, new ones get 503 with Retry-After, and callers share the capacity."""

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.cli.processes import read_until, running
from tests.conftest import KEY, SETTINGS, STATIC, RunningProxy, RunProxy
from tests.pace import PATIENCE
from tests.raw_caller import RawCaller, raw_caller
from tests.raw_upstream import Conversation, raw_upstream
from tests.waiting import block_loop

OTHER_KEY = "sk-other-41c9e0"
OTHER = f'[[access.keys]]\nname = "other"\nkey = "{OTHER_KEY}"\n'
HELD = 5
MAX_LAG = 0.02
BLOCKED_SECONDS = 0.05
FLOOD = 200


class Ticking:
    """An upstream that sends an event in each stream at each tick."""

    def __init__(self) -> None:
        self._writers: list[Conversation] = []

    async def __call__(self, talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"data: begun\n\n")
        self._writers.append(talk)
        await talk.caller_left()

    async def tick(self) -> None:
        """Send an event in each stream."""
        for talk in self._writers:
            with contextlib.suppress(ConnectionError):  # its caller has left
                await talk.chunk(b"data: tick\n\n")


async def begin(caller: RawCaller, key: str = KEY) -> tuple[int, str | None]:
    """Open a stream and read its beginning; return its status, and the code of an error."""
    json_type = "Content-Type: application/json"
    await caller.send("POST", "/v1/chat/completions", json_type, body=b'{"stream": true}', key=key)
    answer = await caller.answer()
    if answer.status == 200:
        assert await caller.chunk() == b"data: begun\n\n"
        return 200, None
    assert answer.header("retry-after") == ["1"]
    return answer.status, json.loads(await caller.body(answer))["error"]["code"]


@asynccontextmanager
async def held_streams(proxy: RunningProxy) -> AsyncIterator[list[RawCaller]]:
    """Hold some streams of one caller."""
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(raw_caller(proxy.url)) for _ in range(HELD)]
        assert [await begin(caller) for caller in callers] == [(200, None)] * HELD
        yield callers


async def test_beyond_the_connection_limit_new_streams_are_rejected_and_running_ones_continue(
    run_proxy: RunProxy,
) -> None:
    upstream_of = Ticking()
    limit = f"max_connections = {HELD}"
    async with (
        raw_upstream(upstream_of) as upstream,
        run_proxy(upstream.url, options=limit) as proxy,
        held_streams(proxy) as held,
    ):
        for _ in range(20):
            async with raw_caller(proxy.url) as caller:
                assert await begin(caller) == (503, "upstream_overloaded")
            await upstream_of.tick()
            for caller in held:
                assert await caller.chunk() == b"data: tick\n\n"


@pytest.mark.fleet
@pytest.mark.xdist_group("load")
async def test_a_flood_of_connections_is_an_overload_though_the_loop_is_on_time(tmp_path: Path) -> None:
    """Where each request opens a connection, they wait for the server to accept them."""

    async def answer(talk: Conversation) -> None:
        await talk.answer(b"{}")

    async def status(key: str) -> int:
        async with raw_caller(url) as caller:
            await caller.send("POST", "/v1/chat/completions", body=b"{}", key=key)
            return (await caller.answer()).status

    async def flood() -> None:
        while 503 not in statuses:
            statuses.append(await status(KEY))

    settings, statuses = tmp_path / "proxy.toml", list[int]()
    async with raw_upstream(answer) as upstream:
        more = f"{OTHER}[limits]\nmax_loop_lag = {MAX_LAG}\n"
        settings.write_text(
            SETTINGS.format(key=KEY, upstream=upstream.url, credential=STATIC, options="", more=more)
        )
        command = [sys.executable, "-m", "proxy", "serve", "--config", str(settings), "--bind", "127.0.0.1:0"]
        async with running("sh", "-c", 'exec "$@" 2>&1', "sh", *command) as process:
            found = re.search(r"http://127\.0\.0\.1:\d+", await read_until(process, "addresses"))
            assert found is not None
            url = found[0]
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
                for _ in range(FLOOD):
                    group.create_task(flood())
            assert await status(OTHER_KEY) == 200


async def keep_blocking() -> None:
    """Block the event loop repeatedly, as too much work does."""
    while True:
        block_loop(BLOCKED_SECONDS)
        await asyncio.sleep(0)


async def until_it_begins(url: str, key: str, wanted: tuple[int, str | None]) -> None:
    """Open streams until one starts as expected."""
    found = None
    while found != wanted:
        async with raw_caller(url) as caller:
            found = await begin(caller, key)


@pytest.mark.timeout(60)
async def test_an_overloaded_process_rejects_the_busiest_caller_and_serves_another(
    run_proxy: RunProxy,
) -> None:
    upstream_of = Ticking()
    more = f"{OTHER}[limits]\nmax_loop_lag = {MAX_LAG}\n"
    async with (
        raw_upstream(upstream_of) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        held_streams(proxy) as held,
        asyncio.TaskGroup() as group,
    ):
        blocking = group.create_task(keep_blocking())
        await until_it_begins(proxy.url, KEY, (503, "server_overloaded"))
        async with raw_caller(proxy.url) as caller:
            assert await begin(caller, OTHER_KEY) == (200, None)
        await upstream_of.tick()
        for caller in held:
            assert await caller.chunk() == b"data: tick\n\n"
        blocking.cancel()
        await until_it_begins(proxy.url, KEY, (200, None))
