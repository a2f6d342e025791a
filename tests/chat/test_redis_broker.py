"""The broker over Redis: with Flask sites on the same Redis, during outages, and its memory use there."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import flask
import flask_sse  # type: ignore[import-untyped]
import pytest
from structlog.testing import capture_logs

from proxy.chat.broker import Broker
from proxy.chat.event import Event
from proxy.chat.live_feed import LiveFeed
from proxy.chat.redis_broker import Backlog, RedisBroker
from proxy.chat.redis_leases import RedisLeases
from proxy.redis_connection import RedisConnection, StoreUnavailable, expect, expect_list
from tests.chat.conftest import open_process, open_redis, processes, shared
from tests.chat.readers import is_silent, take, take_data
from tests.loopback import until
from tests.pace import PATIENCE, paced
from tests.redis_server import RedisServer, redis_server

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
async def durable(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis that loses nothing when it is killed."""
    async with redis_server(tmp_path, *DURABLE) as server:
        yield server


def flask_site(url: str) -> flask.Flask:
    """Return a site as in flask-sse's quickstart."""
    site = flask.Flask("site")
    site.config["REDIS_URL"] = url
    site.register_blueprint(flask_sse.sse, url_prefix="/stream")
    return site


def publish_from_flask(url: str, *arguments: Any, **options: Any) -> None:
    """Publish as a view of a Flask site does."""
    with flask_site(url).app_context():
        flask_sse.sse.publish(*arguments, **options)


async def test_events_of_flask_sse_reach_readers_and_are_not_replayed(store: RedisServer) -> None:
    async with processes(1, store.url) as (process,):
        async with process.broker.subscribe("c", None) as reader:
            await asyncio.to_thread(
                publish_from_flask, store.url, {"message": "你好"}, type="greeting", channel="c"
            )
            assert await take(reader, 1) == [Event({"message": "你好"}, "greeting")]
        async with process.broker.subscribe("c", "0-0") as late:
            assert await is_silent(late)


async def test_events_of_flask_sse_arrive_between_those_of_the_chat(store: RedisServer) -> None:
    async with processes(1, store.url) as (process,), process.broker.subscribe("c", "0-0") as reader:
        await process.broker.publish("c", Event(1))
        assert await take_data(reader, 1) == [1]
        await asyncio.to_thread(publish_from_flask, store.url, 2, channel="c")
        last = await process.broker.publish("c", Event(3))
        assert [event.id for event in await take(reader, 2)] == [None, last]


async def test_a_flask_sse_page_gets_our_events_to_the_byte(store: RedisServer) -> None:
    got: list[str] = []

    def read() -> None:
        site = flask_site(store.url)
        with site.test_request_context("/stream?channel=c"):
            pieces = iter(flask_sse.sse.stream().response)
            got.extend(next(pieces) for _ in range(2))

    async with processes(1, store.url) as (process,), open_redis(shared(store.url)) as (redis, _):
        thread = asyncio.get_running_loop().run_in_executor(None, read)
        async with asyncio.timeout(PATIENCE):
            while await redis.run("PUBSUB", "CHANNELS", "c") != [b"c"]:
                pass
            events = [Event({"message": "<p>你好\n</p>"}, "message_event"), Event("two\nlines", retry=2000)]
            ids = [await process.broker.publish("c", event) for event in events]
            await thread
    sent = [Event(event.data, event.type, name, event.retry) for event, name in zip(events, ids, strict=True)]
    assert [text.encode() for text in got] == [event.encode() for event in sent]


async def test_invalid_messages_are_logged_and_skipped(store: RedisServer) -> None:
    async with (
        processes(1, store.url) as (process,),
        process.broker.subscribe("c", None) as reader,
        open_redis(shared(store.url)) as (redis, _),
    ):
        with capture_logs() as lines:
            strange = (b"canary", b"\xff", b"[]", b'{"data": 1, "type": "a\\nb"}', b'{"type": "no data"}')
            for payload in strange:
                await redis.run("PUBLISH", "c", payload)
            await process.broker.publish("c", Event("after"))
            assert await take_data(reader, 1) == ["after"]
        assert [line["event"] for line in lines] == ["chat_message_unreadable"] * len(strange)
        assert "canary" not in repr(lines)


async def test_an_invalid_entry_is_logged_and_skipped(store: RedisServer) -> None:
    async with processes(1, store.url) as (process,), open_redis(shared(store.url)) as (redis, _):
        await process.broker.publish("c", Event(1))
        for fields in (("x", "y"), ("d", "canary"), ("d", '{"data": 1, "type": "a\\nb"}')):
            await redis.run("XADD", "sse:c", "*", *fields)
        await process.broker.publish("c", Event(2))
        with capture_logs() as lines:
            async with process.broker.subscribe("c", "0-0") as reader:
                assert await take_data(reader, 2) == [1, 2]
        assert [line["event"] for line in lines] == ["chat_entry_unreadable"] * 3
        assert "canary" not in repr(lines)


async def test_stored_and_published_events_are_readable_for_other_services(store: RedisServer) -> None:
    async with processes(1, store.url) as (process,), open_redis(shared(store.url)) as (redis, _):
        listening = redis.listen()
        await listening.subscribe("c")
        name = await process.broker.publish("c", Event({"message": "x"}, "message_event"))
        async with asyncio.timeout(PATIENCE):
            while (message := await listening.get_message(timeout=1))["type"] != "message":
                pass
        await listening.aclose()  # type: ignore[no-untyped-call]
        data = {"data": {"message": "x"}, "type": "message_event"}
        assert json.loads(message["data"]) == {**data, "id": name}
        ((entry, fields),) = expect_list(tuple, await redis.run("XRANGE", "sse:c", "-", "+"))
        assert (entry.decode(), json.loads(fields[b"d"])) == (name, data)
        assert 3_500_000 < expect(int, await redis.run("PTTL", "sse:c")) <= 3_600_000


async def test_a_process_has_one_subscriber_and_an_idle_channel_costs_redis_nothing(
    store: RedisServer,
) -> None:
    async with processes(2, store.url) as (here, there), open_redis(shared(store.url)) as (redis, _):
        readers = [
            broker.subscribe(f"c{number}", None) for number in range(20) for broker in brokers(here, there)
        ]
        await asyncio.gather(*(reader.__aenter__() for reader in readers))
        assert expect(bytes, await redis.run("CLIENT", "LIST", "TYPE", "pubsub")).count(b"\n") == 2
        assert len(expect(list, await redis.run("PUBSUB", "CHANNELS", "c*"))) == 20
        await asyncio.gather(*(reader.__aexit__(None, None, None) for reader in readers))
        async with asyncio.timeout(PATIENCE):
            while await redis.run("PUBSUB", "CHANNELS", "c*"):
                pass


def brokers(*opened: Any) -> list[Broker]:
    """Return the broker of each process."""
    return [process.broker for process in opened]


async def test_a_restart_of_redis_loses_duplicates_and_reorders_nothing(
    durable: RedisServer,
) -> None:
    count = 400

    async def publish(broker: Broker) -> None:
        for number in range(count):
            await broker.publish("c", Event(number), retry_seconds=PATIENCE)
            if number in {100, 250}:
                await durable.stop()
                restarting.append(group.create_task(durable.start()))

    async def read(broker: Broker, after: str | None) -> list[object]:
        async with broker.subscribe("c", after) as reader:
            begun.release()
            return await take_data(reader, count)

    restarting: list[asyncio.Task[None]] = []
    begun = asyncio.Semaphore(0)
    async with processes(2, durable.url, queue=1000) as opened, asyncio.timeout(3 * PATIENCE):
        async with asyncio.TaskGroup() as group:
            reading = [
                group.create_task(read(broker, after))
                for broker in brokers(*opened)
                for after in (None, "0-0", None)
            ]
            for _ in reading:
                await begun.acquire()
            await publish(opened[0].broker)
        for task in reading:
            assert task.result() == [*range(count)]


async def test_readers_that_reconnect_while_redis_restarts_miss_nothing(durable: RedisServer) -> None:
    dice, count = random.Random(3), 1000

    async def read(broker: Broker) -> list[object]:
        got: list[object] = []
        last = "0-0"
        while len(got) < count:
            async with broker.subscribe("c", last) as reader:
                for event in await take(reader, min(dice.choice([0, 1, 20, 150]), count - len(got))):
                    got.append(event.data)
                    last = event.id or last
        return got

    async with processes(2, durable.url, queue=count) as opened, asyncio.timeout(3 * PATIENCE):
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(read(broker)) for broker in brokers(*opened) * 4]
            for number in range(count):
                await opened[number % 2].broker.publish("c", Event(number))
                if number == count // 2:
                    await durable.stop()
                    await durable.start()
        for task in reading:
            assert task.result() == [*range(count)]


async def test_open_readers_get_events_after_redis_returns_empty(store: RedisServer) -> None:
    async with processes(2, store.url) as (here, there), there.broker.subscribe("c", None) as reader:
        await here.broker.publish("c", Event(1))
        assert await take_data(reader, 1) == [1]
        await store.stop()
        await store.start()
        await here.broker.publish("c", Event(2))
        assert await take_data(reader, 1) == [2]


async def test_a_reader_that_subscribed_during_an_outage_gets_missed_events(durable: RedisServer) -> None:
    async with processes(1, durable.url, redis_timeout=paced(1.0)) as (process,):
        first = await process.broker.publish("c", Event(1))
        await process.broker.publish("c", Event(2))
        await durable.stop()
        async with (
            process.broker.subscribe("c", first) as reader,
            process.broker.subscribe("c", None) as live,
        ):
            assert await is_silent(reader)
            await durable.start()
            assert await take_data(reader, 1) == [2]
            assert await is_silent(live)  # it is subscribed, and has nothing to replay
            await process.broker.publish("c", Event(3))
            assert await take_data(reader, 1) == [3]
            assert await take_data(live, 1) == [3]


async def test_closing_ends_a_reader_that_waits_for_redis(store: RedisServer) -> None:
    async with open_process(shared(store.url), turns=1) as process:
        await store.stop()
        async with process.broker.subscribe("c", "0-0") as reader:
            await process.broker.close()
            with pytest.raises(Exception, match=r"^$"):
                await take(reader, 1)


async def test_without_redis_a_publication_fails_after_its_timeout(store: RedisServer) -> None:
    async with open_redis(shared(store.url)) as (redis, feed):
        broker = RedisBroker(redis, feed, RedisLeases(redis))
        await store.stop()
        for failing in (
            broker.publish("c", Event(1), retry_seconds=0.2),
            broker.has_events("c"),
            broker.forget("c"),
        ):
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(StoreUnavailable):
                    await failing


def open_backlog(redis: RedisConnection) -> Backlog:
    """Return the streams without the fields that a broker adds."""
    return Backlog(redis, RedisLeases(redis), turns=500, size=1 << 20, expire=60)


async def test_retrying_after_a_lost_reply_does_not_publish_twice(store: RedisServer) -> None:
    async with processes(1, store.url) as (process,), open_redis(shared(store.url)) as (redis, _):
        backlog, event, number = open_backlog(redis), Event(1), Backlog.new_nonce()
        async with process.broker.subscribe("c", None) as reader:
            first = await backlog.publish("c", event, number, again=False)
            await process.broker.publish("c", Event(2))
            assert await backlog.publish("c", event, number, again=True) == first
            assert await take_data(reader, 2) == [1, 2]
            assert await is_silent(reader)
            assert await backlog.publish("c", event, Backlog.new_nonce(), again=True) != first


async def test_a_silent_redis_is_abandoned_and_caught_up_with_later(store: RedisServer) -> None:
    settings = shared(store.url, redis_timeout=paced(0.5))
    redis = RedisConnection(settings)
    feed = LiveFeed(redis, ping=paced(0.1))
    broker = RedisBroker(redis, feed, RedisLeases(redis))
    with capture_logs() as lines:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(feed.run())
            async with broker.subscribe("c", None) as reader, processes(1, store.url) as (other,):
                store.pause()
                await until(lambda: bool(lines))
                store.resume()
                await other.broker.publish("c", Event(1))
                assert await take_data(reader, 1) == [1]
            running.cancel()
    await redis.close()
    assert {line["event"] for line in lines} == {"chat_feed_lost"}
    assert lines[0]["reason"] == "silent"


async def test_an_error_in_the_block_is_raised_unchanged(store: RedisServer) -> None:
    with pytest.raises(ValueError, match="of the block"):
        async with open_process(shared(store.url), turns=1):
            raise ValueError("of the block")


async def test_it_closes_while_redis_is_unavailable(store: RedisServer) -> None:
    async with asyncio.timeout(PATIENCE):
        async with open_process(shared(store.url), turns=1) as process:
            async with process.broker.subscribe("c", None):
                pass
            await store.stop()
