"""A silent upstream: the caller gets comment lines if they are enabled."""

import asyncio
import gzip
import json

import pytest

from tests.conftest import KEY, RunProxy
from tests.loopback import until
from tests.pace import paced
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream
from tests.virtual_time import leap

BEAT = b": heartbeat\n\n"
EVENT = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
JSON = "Content-Type: application/json"
CHAT = "/v1/chat/completions"
STREAMED = b'{"stream": true}'
ON = "heartbeat = 0.05"


class Upstream:
    """An upstream that waits until the test lets it continue."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def stream(self, talk: Conversation) -> None:
        """Wait, then stream, and wait again in the middle."""
        for data in (EVENT, EVENT + DONE):
            await self.go_on.wait()
            self.go_on.clear()
            if data == EVENT:
                await talk.start_stream()
            await talk.chunk(data)
        await talk.end()

    async def refuse(self, talk: Conversation) -> None:
        """Wait, then reject."""
        await self.go_on.wait()
        await talk.answer(
            b'{"error": {"message": "too long", "type": "t", "param": null, "code": "c"}}', status="400 Bad"
        )

    async def break_off(self, talk: Conversation) -> None:
        """Wait, then reset the connection."""
        await self.go_on.wait()
        talk.reset()

    async def no_stream(self, talk: Conversation) -> None:
        """Wait, then answer with something other than a stream."""
        await self.go_on.wait()
        await talk.answer(b'{"choices": []}', "Content-Type: application/json")

    async def compress(self, talk: Conversation) -> None:
        """Wait, then send a stream that the caller could not read, and leave it open."""
        await self.go_on.wait()
        await talk.start_stream("Content-Encoding: gzip")
        await talk.chunk(gzip.compress(EVENT))
        await talk.caller_left()


async def test_a_caller_gets_heartbeats_while_the_upstream_is_silent(run_proxy: RunProxy) -> None:
    upstream = Upstream()
    async with (
        raw_upstream(upstream.stream) as raw,
        run_proxy(raw.url, options=ON) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=STREAMED)
        answer = await caller.answer()
        assert answer.status == 200
        assert answer.header("content-type") == ["text/event-stream; charset=utf-8"]
        assert answer.header("x-accel-buffering") == ["no"]
        assert [await caller.chunk(), await caller.chunk()] == [BEAT, BEAT]
        upstream.go_on.set()
        while (chunk := await caller.chunk()) == BEAT:
            pass
        assert chunk == EVENT
        assert await caller.chunk() == BEAT  # also in the middle
        upstream.go_on.set()
        while (chunk := await caller.chunk()) == BEAT:
            pass
        assert chunk == EVENT + DONE
        assert await caller.chunk() == b""
    assert proxy.exchanges[-1]["outcome"] == "ok"


@pytest.mark.parametrize(
    ("options", "path", "body"),
    [
        ("", CHAT, STREAMED),
        (ON, CHAT, b"{}"),
        (ON, CHAT, b'{"stream": false}'),
        (ON, "/v1/embeddings", STREAMED),
    ],
)
async def test_callers_without_heartbeat_get_none(
    run_proxy: RunProxy, options: str, path: str, body: bytes
) -> None:
    upstream = Upstream()
    async with (
        raw_upstream(upstream.no_stream) as raw,
        run_proxy(raw.url, options=options) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", path, JSON, body=body)
        await until(lambda: bool(raw.requests))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await caller.answer()
        upstream.go_on.set()
        assert (await caller.answer()).status == 200


async def test_a_caller_can_turn_it_on_or_off(run_proxy: RunProxy) -> None:
    upstream = Upstream()
    more = '[[access.keys]]\nname = "patient"\nkey = "sk-patient"\nheartbeat = 0\n'
    async with (
        raw_upstream(upstream.no_stream) as raw,
        run_proxy(raw.url, options=ON, more=more) as proxy,
        raw_caller(proxy.url) as one,
        raw_caller(proxy.url) as other,
    ):
        await one.send("POST", CHAT, JSON, body=STREAMED, key=KEY)
        await other.send("POST", CHAT, JSON, body=STREAMED, key="sk-patient")
        await one.answer()
        assert await one.chunk() == BEAT
        upstream.go_on.set()
        assert (await other.answer()).header("content-length") == ["15"]


async def test_a_failure_before_the_first_heartbeat_keeps_its_status(run_proxy: RunProxy) -> None:
    upstream = Upstream()
    upstream.go_on.set()
    for script, status in ((upstream.refuse, 400), (upstream.break_off, 502)):
        async with (
            raw_upstream(script) as raw,
            run_proxy(raw.url, options="heartbeat = 60") as proxy,
            raw_caller(proxy.url) as caller,
        ):
            await caller.send("POST", CHAT, JSON, body=STREAMED)
            assert (await caller.answer()).status == status


@pytest.mark.parametrize(
    ("script", "code", "outcome"),
    [
        ("refuse", "c", "upstream_bad_response"),
        ("break_off", "upstream_bad_response", "upstream_bad_response"),
        ("no_stream", "upstream_bad_response", "upstream_bad_response"),
        ("compress", "upstream_bad_response", "upstream_bad_response"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
async def test_a_failure_after_it_is_an_error_event(
    run_proxy: RunProxy, script: str, code: str, outcome: str, path: str
) -> None:
    upstream = Upstream()
    async with (
        raw_upstream(getattr(upstream, script)) as raw,
        run_proxy(raw.url, options=ON) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", path, JSON, body=STREAMED)
        await caller.answer()
        assert await caller.chunk() == BEAT
        upstream.go_on.set()
        while (chunk := await caller.chunk()) == BEAT:
            pass
        head, found, data = chunk.rpartition(b"data: ")
        assert found
        assert head == (b"event: error\n" if path != CHAT else b"")
        assert json.loads(data)["error"]["code"] == code
        assert await caller.chunk() == b""
    assert proxy.exchanges[-1]["outcome"] == outcome


async def test_the_first_byte_timeout_keeps_running(run_proxy: RunProxy) -> None:
    upstream = Upstream()
    async with (
        raw_upstream(upstream.stream) as raw,
        run_proxy(raw.url, options=ON + f"\ntimeouts.first_byte = {paced(0.5)}") as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=STREAMED)
        answer = await caller.answer()
        body = await caller.body(answer)
        assert b'"code":"upstream_timeout"' in body
        assert b"[DONE]" not in body


async def test_the_idle_timeout_keeps_running(run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = Upstream()
    upstream.go_on.set()
    async with (
        raw_upstream(upstream.stream) as raw,
        run_proxy(raw.url, options=ON + "\ntimeouts.idle = 20") as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=STREAMED)
        answer = await caller.answer()
        while await caller.chunk() == BEAT:
            pass
        assert [await caller.chunk(), await caller.chunk()] == [BEAT, BEAT]
        leap(monkeypatch, 20)
        assert b'"code":"upstream_aborted"' in await caller.body(answer)
    assert proxy.exchanges[-1]["outcome"] == "upstream_timeout"


async def test_a_caller_who_leaves_between_beats_closes_the_upstream(run_proxy: RunProxy) -> None:
    async with raw_upstream(Conversation.caller_left) as raw, run_proxy(raw.url, options=ON) as proxy:
        async with raw_caller(proxy.url) as caller:
            await caller.send("POST", CHAT, JSON, body=STREAMED)
            await caller.answer()
            assert await caller.chunk() == BEAT
            caller.reset()
        await until(lambda: not raw.connections and bool(proxy.exchanges))
    assert proxy.exchanges[-1]["outcome"] == "client_gone"


async def test_a_drain_ends_a_stream_that_only_sends_heartbeats(run_proxy: RunProxy) -> None:
    upstream = Upstream()
    async with (
        raw_upstream(upstream.stream) as raw,
        run_proxy(raw.url, options=ON) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=STREAMED)
        answer = await caller.answer()
        assert await caller.chunk() == BEAT
        proxy.drain.stop_all()
        assert b'"code":"shutting_down"' in await caller.body(answer)
        upstream.go_on.set()
