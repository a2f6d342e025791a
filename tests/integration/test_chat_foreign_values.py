"""Whatever another program writes to the chat's keys in Redis, no request fails with a 500 or a traceback."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis
from structlog.typing import EventDict

from proxy.chat.redis_leases import LEASES
from proxy.redis_connection import expect_list
from tests.chat.visitor import Stream, Visitor, visitor
from tests.conftest import RunProxy
from tests.pace import PATIENCE
from tests.raw_upstream import Conversation, raw_upstream
from tests.redis_server import redis_server

CHAT: Final = """
[chat]
secret = "s"
rate = "10000/second"
[shared]
redis_url = "{redis}"
encryption_key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
redis_timeout = 5
"""
PARTS: Final = ("owner", "lease", "starts", "bytes", "turns")
ANSWER: Final = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Hello."}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
TYPES: Final[dict[str, Callable[[Redis, bytes], object]]] = {
    "string": lambda redis, key: redis.set(key, b"\xff not a number"),
    "list": lambda redis, key: redis.rpush(key, b"\xff", b"[]", b"9" * 5000),
    "hash": lambda redis, key: redis.hset(key, mapping={b"\xff": b"\xfe", b"holder": b"\xfd", b"c": b"1"}),
    "set": lambda redis, key: redis.sadd(key, b"\xff", b"a"),
    "sorted set": lambda redis, key: redis.zadd(key, {b"\xff": 1e300, b"a": float("inf"), b"b": -1.0}),
    "stream": lambda redis, key: redis.xadd(key, {b"x": b"\xff"}),
}
ENVELOPES: Final = (
    *(b"", b"\xff", b"5", b"[]", b'"text"', b"null", b'{"data":', b"{}", b'{"data":' + b"9" * 5000 + b"}"),
    *(b'{"data":1e999}', b'{"data":-0.0,"retry":1e99}', b'{"data":1,"retry":"%s"}' % (b"9" * 30)),
    *(b'{"data":{"state":[1]},"type":"state_event"}', b'{"data":{"state":{}},"type":"state_event"}'),
    *(b'{"data":"\\ud800","type":"\\udfff"}', b'{"data":1,"type":"a\\nb"}', b'{"data":1,"type":[]}'),
    *(b'{"data":{"message":5},"type":"message_event"}', b'{"data":{"message":{}},"type":"message_event"}'),
    *(b'{"data":' + b"[" * depth + b"]" * depth + b"}" for depth in (900, 950, 980, 100_000)),
)


async def answer(talk: Conversation) -> None:
    """Answer any question."""
    await talk.start_stream()
    await talk.chunk(ANSWER)
    await talk.end()


async def status_of_stream(someone: Visitor, after: str | None) -> int:
    """Open the stream of the visitor's channel, and return its status."""
    query = {"channel": someone.channel, **({} if after is None else {"last_event_id": after})}
    async with someone.http.get(f"{someone.url}/chat/stream", params=query) as response:
        if response.status == HTTPStatus.OK:
            async with asyncio.timeout(PATIENCE):
                await response.content.readuntil(b"\n\n")
        return response.status


async def use_every_route(someone: Visitor) -> list[int]:
    """Send every request of the chat; return the statuses."""
    other = Visitor(someone.url, someone.http, "another")
    statuses = [
        (await someone.get("session"))[0],
        (await someone.get(f"session?channel={someone.channel}"))[0],
        (await someone.get("conversations"))[0],
        (await someone.get("conversations?search=hello"))[0],
    ]
    statuses += [await status_of_stream(someone, after) for after in (None, "0-0")]
    for action in ("rename", "dialogue", "regenerate", "stop", "reset"):
        statuses.append((await someone.json(action, title="t", prompt="again"))[0])
    branch = {"source": someone.channel, "before": "99999999999999-0", "prompt": "go on"}
    statuses.append((await other.json("dialogue", **branch))[0])
    return statuses


def assert_defined(key: bytes, statuses: list[int], lines: list[EventDict]) -> None:
    """Check that each outcome is one that the chat defines."""
    assert {*statuses} <= {200, 204, 403, 404, 503}, (key, statuses)
    defects = [line for line in lines if line.get("exc_info") or line["log_level"] in {"error", "critical"}]
    assert defects == [], key


@pytest.mark.long
@pytest.mark.parametrize("poison", TYPES)
async def test_a_key_of_any_type_is_a_defined_outcome(
    run_proxy: RunProxy, tmp_path: Path, poison: str
) -> None:
    async with (
        redis_server(tmp_path) as server,
        Redis.from_url(server.url) as redis,
        raw_upstream(answer) as upstream,
        run_proxy(upstream.url, more=CHAT.format(redis=server.url)) as proxy,
        visitor(proxy.url) as someone,
    ):
        async with someone.listen() as stream:
            await someone.ask("hello")
            await stream.turn()
        names = expect_list(bytes, await redis.keys("*"))
        kept = {name: await redis.dump(name) for name in names}
        channels = (someone.channel, "another")
        names += [f"sse:{channel}".encode() for channel in channels]
        names += [f"llm-token-proxy:{{{channel}}}:{part}".encode() for channel in channels for part in PARTS]
        for key in {*names, LEASES.encode()}:
            async with redis.pipeline(transaction=True) as at_once:  # the last dialogue may still be writing
                at_once.flushall()
                for name, value in kept.items():
                    if value is not None:  # it had not expired
                        at_once.restore(name, 0, value)
                at_once.delete(key)
                TYPES[poison](at_once, key)
                await at_once.execute()
            assert_defined(key, await use_every_route(someone), proxy.lines)


async def test_events_of_any_form_are_left_out_or_shown(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        Redis.from_url(server.url) as redis,
        raw_upstream(answer) as upstream,
        run_proxy(upstream.url, more=CHAT.format(redis=server.url)) as proxy,
        visitor(proxy.url) as someone,
    ):
        await someone.ask("hello")
        name = f"sse:{someone.channel}"
        async with someone.listen() as stream:
            await stream.turn()
            for envelope in ENVELOPES:
                await redis.publish(someone.channel, envelope)
                await redis.xadd(name, {b"d": envelope})
            await redis.xadd(name, {b"d": b'{"data":"the last one"}'})
            await redis.publish(someone.channel, b'{"data":"the last one"}')
            await read_to_the_last(stream)
        async with someone.listen() as again:
            await read_to_the_last(again)
        assert_defined(name.encode(), await use_every_route(someone), proxy.lines)
    assert {"chat_message_unreadable", "chat_entry_unreadable"} <= {line["event"] for line in proxy.lines}


async def read_to_the_last(stream: Stream) -> None:
    """Read events until the last one that the test has written."""
    while b"the last one" not in await stream.block():
        pass


async def test_a_reader_gets_an_error_that_names_the_cause(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        Redis.from_url(server.url) as redis,
        run_proxy("http://127.0.0.1:9", more=CHAT.format(redis=server.url)) as proxy,
        visitor(proxy.url) as someone,
    ):
        await redis.set(f"sse:{someone.channel}", "of another program")
        status, body = await someone.get(f"stream?channel={someone.channel}")
        assert (status, body["code"], body["reason"]) == (503, 0, "store_corrupt")
        async with someone.listen() as stream:
            error = await stream.next()
            assert (error.type, error.data["reason"]) == ("message_event", "store_corrupt")
            with pytest.raises(EOFError):
                await stream.block()
        status, body = await someone.post("dialogue", "hello")
        assert (status, body["code"], body["reason"]) == (503, 0, "store_corrupt")
    reasons = {line["event"]: line["reason"] for line in proxy.lines if "reason" in line}
    for event in ("chat_request_failed", "chat_stream_failed"):
        assert "a key holds something that this program has not written" in reasons[event]
        assert "redis_url" in reasons[event]
