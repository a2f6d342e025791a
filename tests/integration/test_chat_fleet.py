"""One chat on two processes, with a real Redis, a real nginx, and a Flask site with flask-sse."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import flask
import flask_sse  # type: ignore[import-untyped]
import pytest
import redis.asyncio

from proxy.chat.paragraphs import ParagraphSplitter
from proxy.chat.render import BlockKind, render_block
from proxy.gateway.echo import PromptTurn, think
from tests.chat.visitor import Heard, Stream, Visitor, blocks, states, visitor
from tests.cli.processes import read_until, running
from tests.conftest import KEY, SETTINGS, RunningGateway, RunProxy
from tests.held_gateway import ANSWER, HeldGateway
from tests.nginx import LOCATIONS, nginx_before
from tests.pace import PATIENCE
from tests.redis_server import RedisServer, redis_server
from tests.waiting import look_again

DIALOGUES = int(os.environ.get("PROXY_TEST_DIALOGUES", "30"))
AT_ONCE = 10
FLEET = """
[shared]
redis_url = "{redis}"
encryption_key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
redis_timeout = 5

[chat]
secret = "one-for-all"
rate = "100000/second"
turns = 0
"""
SERVICE = """
import functools, pathlib, sys
from proxy.cli.worker import ServeOptions, serve_until_stopped
from proxy.cli.server import load_server_config, open_sockets
from proxy.server.event_loop import run
from proxy.settings import load_settings
from proxy.telemetry import configure_logs
sockets = open_sockets([f"127.0.0.1:{sys.argv[2] if len(sys.argv) > 2 else 0}"], backlog=1000)
print(sockets[0].getsockname()[1], flush=True)
settings = load_settings(pathlib.Path(sys.argv[1]), {})
configure_logs(settings.logs)  # away from standard output, which is not read any further
run(functools.partial(serve_until_stopped, settings, ServeOptions(load_server_config(None), sockets)))
"""


@dataclass(frozen=True)
class Pair:
    """Two services and the Redis that they share."""

    posts: str
    streams: str
    redis: RedisServer


@dataclass(frozen=True)
class Fleet(Pair):
    """Two services in separate processes."""

    posting: asyncio.subprocess.Process


@pytest.fixture
async def fleet(gateway: RunningGateway, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Run both services in front of the demonstration gateway."""
    async with redis_server(tmp_path) as server:
        path = tmp_path / "fleet.toml"
        more = FLEET.format(redis=server.url)
        text = SETTINGS.format(
            key=KEY, upstream=gateway.url, credential=gateway.credential, options="", more=more
        )
        path.write_text(text.replace("[access]", '[access]\nhosts = ["nginx.example"]', 1))
        command = (sys.executable, "-c", SERVICE, str(path))
        async with running(*command) as one, running(*command) as other:
            yield Fleet(await address_of(one), await address_of(other), server, one)


@pytest.fixture
async def pair(run_proxy: RunProxy, gateway: RunningGateway, tmp_path: Path) -> AsyncIterator[Pair]:
    """Run two services in this process, which start quickly."""
    async with redis_server(tmp_path) as server:
        options = {"credential": gateway.credential, "more": FLEET.format(redis=server.url)}
        async with run_proxy(gateway.url, **options) as one, run_proxy(gateway.url, **options) as other:
            yield Pair(one.url, other.url, server)


async def address_of(process: asyncio.subprocess.Process) -> str:
    """Read the port, which a service prints first."""
    return f"http://127.0.0.1:{(await read_until(process, r'[0-9]+')).strip()}"


def expected(prompt: str) -> list[str]:
    """Return the blocks of a whole turn, rendered here."""
    thoughts, answer = ("".join(pieces) for pieces in think([PromptTurn("user", prompt)]))
    parts: list[tuple[BlockKind, str]] = [("describe", thoughts), ("left", answer)]
    shown = [render_block("right", prompt)]
    for kind, text in parts:
        cutter = ParagraphSplitter()
        shown += [render_block(kind, piece) for piece in [*cutter.feed(text), *cutter.flush()]]
    return shown


async def converse(url: str, socket: str | None, prompts: range, heard: list[list[Heard]]) -> str:
    """Let one visitor ask one question after the other; return the channel."""
    async with visitor(url, socket=socket) as someone, someone.listen() as stream:
        for number in prompts:
            await someone.ask(f"第 {number} 个问题？")
            heard.append(await stream.turn())
        return someone.channel


@pytest.mark.timeout(900)
async def test_posts_on_one_process_and_streams_on_the_other_lose_nothing(
    fleet: Fleet, tmp_path: Path
) -> None:
    heard: list[list[Heard]] = []
    home = tmp_path / "nginx"
    home.mkdir()
    posts, streams = (url.removeprefix("http://") for url in (fleet.posts, fleet.streams))
    more = f"map $request_method $process {{ POST {posts}; default {streams}; }}\n"
    more += LOCATIONS.with_name("log.conf").read_text()

    def logged(locations: str) -> str:
        return locations.replace("access_log off;", f"access_log {home}/chat.log llm_proxy_no_query;")

    async with (
        nginx_before("http://$process", home, more=more, edit=logged) as socket,
        asyncio.TaskGroup() as group,
    ):
        visitors = []
        for number in range(AT_ONCE):
            prompts = range(number, DIALOGUES, AT_ONCE)
            talk = converse("http://nginx.example", str(socket), prompts, heard)
            visitors.append(group.create_task(talk))
    assert len(heard) == DIALOGUES
    told = {blocks(events)[0]: events for events in heard}
    for number in range(DIALOGUES):
        wanted = expected(f"第 {number} 个问题？")
        assert blocks(told[wanted[0]]) == wanted
        assert states(told[wanted[0]]) == ["waiting", "thinking", "answering", "done"]
    logs = "".join(path.read_text() for path in home.glob("*.log"))
    assert "POST /chat/dialogue HTTP/1.1" in logs
    assert not any(task.result() in logs for task in visitors)


async def test_stop_busy_and_ownership_reach_across_services(pair: Pair, held_gateway: HeldGateway) -> None:
    async with visitor(pair.posts) as someone:
        other = Visitor(pair.streams, someone.http, someone.channel)
        with held_gateway.holding(ANSWER):
            async with other.listen() as stream:
                await someone.ask("数一数")
                await stream.until("thinking")
                assert (await other.get("session"))[1] == {"channel": someone.channel, "busy": True}
                assert "still being written" in (await other.post("dialogue", "又"))[1]["msg"]
                assert await other.post("stop") == (200, {"code": 1, "msg": ""})
                assert states(await stream.turn()) == ["stopped"]
        async with visitor(pair.streams) as stranger:
            assert (await stranger.post("dialogue", "x", someone.channel))[0] == 403
            assert (await stranger.get(f"stream?channel={someone.channel}"))[0] == 403


async def test_a_dialogue_finishes_while_its_process_drains(fleet: Fleet, held_gateway: HeldGateway) -> None:
    async with visitor(fleet.posts) as someone:
        other = Visitor(fleet.streams, someone.http, someone.channel)
        async with other.listen() as stream, someone.listen() as drained:
            with held_gateway.holding(ANSWER):
                await someone.ask("数一数")
                heard = await stream.until("thinking")
                fleet.posting.send_signal(signal.SIGINT)  # without the readiness delay
                with pytest.raises(EOFError):
                    await drained.until("done")
            heard += await stream.turn()
    assert blocks(heard) == expected("数一数")
    async with asyncio.timeout(PATIENCE):
        assert await fleet.posting.wait() == 0


# --- beside flask-sse


def flask_site(server: RedisServer) -> flask.Flask:
    """Return a site as flask-sse's documentation describes it."""
    site = flask.Flask("site")
    site.config["REDIS_URL"] = server.url
    site.register_blueprint(flask_sse.sse, url_prefix="/stream")
    return site


async def test_flask_sse_and_the_proxy_receive_each_others_events(pair: Pair) -> None:
    site = flask_site(pair.redis)

    def publish() -> None:
        with site.app_context():
            flask_sse.sse.publish({"message": "<p>你好</p>"}, type="message_event", channel=someone.channel)
            flask_sse.sse.publish("two\nlines", channel=someone.channel)

    async with visitor(pair.streams) as someone, someone.listen() as stream:
        await stream.block()
        await asyncio.to_thread(publish)
        first, second = await stream.next(), await stream.next()
        assert (first.type, first.data, first.id) == ("message_event", {"message": "<p>你好</p>"}, "")
        assert (second.type, second.data) == ("message", "two\nlines")
        with site.app_context():
            listening = flask_sse.sse.messages(channel=someone.channel)
        async with asyncio.TaskGroup() as group:
            theirs = group.create_task(asyncio.to_thread(_next_message, site, listening))
            await until_subscribed(pair.redis, someone.channel)
            await Visitor(pair.posts, someone.http, someone.channel).ask("hi")
            ours = await _first_block(stream)
    assert await theirs == ours


def _next_message(site: flask.Flask, messages: Iterator[object]) -> bytes:
    with site.app_context():
        return str(next(messages)).encode()


async def until_subscribed(server: RedisServer, channel: str) -> None:
    """Wait until our service and flask-sse listen."""
    async with redis.asyncio.Redis.from_url(server.url) as client, asyncio.timeout(PATIENCE):
        while (await client.pubsub_numsub(channel))[0][1] < 2:
            await look_again()


async def _first_block(stream: Stream) -> bytes:
    while not (block := await stream.block()).startswith(b"event:"):
        pass
    return block + b"\n"
