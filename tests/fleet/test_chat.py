"""The chat of two processes over Redis, while processes and Redis are killed, stopped and started again.

`PROXY_TEST_DIALOGUES=300` asks as many questions; there are fewer by default.
"""

import asyncio
import contextlib
import os
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import pytest
import pytest_asyncio

from proxy.chat import notices
from proxy.chat.render import render_block
from tests.chat.visitor import Heard, Visitor, blocks, visitor
from tests.cli.processes import running
from tests.conftest import KEY, SETTINGS, RunningGateway
from tests.held_gateway import END, HeldGateway
from tests.integration.test_chat_fleet import FLEET, SERVICE, address_of, expected
from tests.pace import paced
from tests.ports import free_port
from tests.redis_server import RedisServer, redis_server

DIALOGUES: Final = int(os.environ.get("PROXY_TEST_DIALOGUES", "20"))
AT_ONCE: Final = 5
END_SECONDS: Final = paced(15.0)
"""How long a dialogue may take to end after all processes have restarted."""
CUT_OFF: Final = render_block("error", notices.CUT_OFF.text)
ENDS: Final = frozenset({"done", "stopped", "failed"})
DURABLE: Final = ("--appendonly", "yes", "--appendfsync", "always")

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("chat"), pytest.mark.timeout(1800)]


@dataclass
class Member:
    """A process that can be killed and restarted on the same port."""

    path: Path
    port: int = field(default_factory=free_port)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """The address of the process."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the process, and wait until it listens."""
        command = (sys.executable, "-c", SERVICE, str(self.path), str(self.port))
        self.process = await self.stack.enter_async_context(running(*command))
        assert await address_of(self.process) == self.url

    async def restart(self, seconds: float) -> None:
        """Kill the process, and restart it after a while."""
        assert self.process is not None
        self.process.kill()
        await self.stack.aclose()
        await asyncio.sleep(seconds)
        await self.start()

    async def pause(self, seconds: float) -> None:
        """Stop the process for a while."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)


@dataclass(frozen=True)
class Chat:
    """Two members and their Redis."""

    members: tuple[Member, Member]
    redis: RedisServer


@pytest_asyncio.fixture
async def chat(gateway: RunningGateway, tmp_path: Path) -> AsyncIterator[Chat]:
    """Run a chat whose answers take some seconds."""
    gateway.gateway.options = type(gateway.gateway.options)(word_delay=0.03)
    async with redis_server(tmp_path, *DURABLE) as redis, AsyncExitStack() as stack:
        path = tmp_path / "chat.toml"
        more = FLEET.format(redis=redis.url).replace("redis_timeout = 5", f"redis_timeout = {paced(0.5)}")
        path.write_text(
            SETTINGS.format(
                key=KEY, upstream=gateway.url, credential=gateway.credential, options="", more=more
            )
        )
        members = Member(path), Member(path)
        for member in members:
            stack.push_async_exit(member.stack)
            stack.push_async_callback(member.stack.aclose)
            await member.start()
        yield Chat(members, redis)


class Page:
    """What a page receives: it reconnects with its last id when a stream breaks, as browsers do.

    Args:
        chat: The members; a load balancer in front of them takes one that answers.
        someone: The visitor.
        after: The id from which the page reads first; the article's page reads live events only.
    """

    def __init__(self, chat: Chat, someone: Visitor, after: str | None) -> None:
        self._chat = chat
        self._visitor = someone
        self._last = after
        self._open = asyncio.Event()
        self._begun = asyncio.Event()
        self.heard: list[Heard] = []

    async def opened(self) -> None:
        """Wait for the first stream."""
        await self._open.wait()

    async def begun(self) -> None:
        """Wait for the first event. A page without an id would miss the events before its reconnection."""
        await self._begun.wait()

    async def read_to_the_end(self, first: int) -> None:
        """Read until the dialogue has ended."""
        member = first
        while not any(event.state in ENDS for event in self.heard):
            with contextlib.suppress(aiohttp.ClientError, EOFError, OSError, TimeoutError, AssertionError):
                other = Visitor(self._chat.members[member].url, self._visitor.http, self._visitor.channel)
                async with other.listen(self._last) as stream:
                    self._open.set()
                    while not self.heard or self.heard[-1].state not in ENDS:
                        self.heard.append(await stream.next())
                        self._begun.set()
                        self._last = stream.last_id
            member = 1 - member
            await asyncio.sleep(0.2)


Fault = Callable[[Chat, random.Random], Awaitable[None]]


async def _kill_a_process(chat: Chat, dice: random.Random) -> None:
    await dice.choice(chat.members).restart(dice.uniform(0, 3))


async def _stop_a_process(chat: Chat, dice: random.Random) -> None:
    await dice.choice(chat.members).pause(dice.uniform(0.5, 12))


async def _restart_redis(chat: Chat, dice: random.Random) -> None:
    await chat.redis.stop()
    await asyncio.sleep(dice.uniform(0, 12))
    await chat.redis.start()


async def _stop_redis(chat: Chat, dice: random.Random) -> None:
    chat.redis.pause()
    await asyncio.sleep(dice.uniform(0.5, 12))
    chat.redis.resume()


FAULTS: Final[dict[str, Fault]] = {
    "a process is killed": _kill_a_process,
    "a process is stopped": _stop_a_process,
    "Redis is killed": _restart_redis,
    "Redis is stopped": _stop_redis,
}


class Round:
    """Questions that are asked at the same time, and how their dialogues end on both pages.

    Args:
        chat: The members.
        count: How many questions.
    """

    def __init__(self, chat: Chat, count: int) -> None:
        self.ends: Counter[str] = Counter()
        self.problems: list[str] = []
        self.asked = asyncio.Semaphore(0)
        self.healed = asyncio.Event()
        self._chat = chat
        self._count = count

    async def all_asked(self) -> None:
        """Wait until the questions are asked."""
        for _ in range(self._count):
            await self.asked.acquire()

    async def converse(self, number: int, posting: int, reading: tuple[int, int]) -> None:
        """Ask one question of a member, and read the answer on two pages."""
        prompt = f"第 {number} 个问题？"
        async with visitor(self._chat.members[0].url) as someone, asyncio.TaskGroup() as group:
            pages = Page(self._chat, someone, None), Page(self._chat, someone, "0-0")
            tasks = [
                group.create_task(page.read_to_the_end(member))
                for page, member in zip(pages, reading, strict=True)
            ]
            for page in pages:
                await page.opened()
            await Visitor(self._chat.members[posting].url, someone.http, someone.channel).ask(prompt)
            for page in pages:
                await page.begun()
            self.asked.release()
            await self.healed.wait()
            await asyncio.wait(tasks, timeout=END_SECONDS)
            for task in tasks:
                task.cancel()
        for page in pages:
            self._judge(prompt, page.heard)

    def _judge(self, prompt: str, heard: list[Heard]) -> None:
        shown, whole = blocks(heard), text_of(expected(prompt))
        end = next((event.state for event in heard if event.state in ENDS), "stuck")
        self.ends[end] += 1
        if end == "done" and text_of(shown) != whole:
            self.problems.append(f"an incomplete or repetitive answer: {text_of(shown)}")
        if end == "failed" and (shown[-1] != CUT_OFF or not whole.startswith(text_of(shown[:-1]))):
            self.problems.append(f"not the beginning of the answer and an error: {shown[-2:]}")
        if end == "stuck":
            self.problems.append(f"stuck after {[event.state for event in heard]}")


def text_of(shown: list[str]) -> str:
    """Return the text of blocks: after a pause of the model, the same text is split in other places."""
    return re.sub(r"<[^>]*>|\s", "", "".join(shown))


async def test_each_dialogue_ends_complete_or_with_an_error(chat: Chat) -> None:
    dice = random.Random(int(os.environ.get("PROXY_TEST_SEED", "16")))
    ends: dict[str, Counter[str]] = {name: Counter() for name in FAULTS}
    problems = []
    for start in range(0, DIALOGUES, AT_ONCE):
        name = list(FAULTS)[start // AT_ONCE % len(FAULTS)]
        asked = Round(chat, AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for number in range(start, start + AT_ONCE):
                members = dice.randrange(2), (dice.randrange(2), dice.randrange(2))
                group.create_task(asked.converse(number, *members))
            await asked.all_asked()
            await asyncio.sleep(dice.uniform(0, 3))
            await FAULTS[name](chat, dice)
            asked.healed.set()
        ends[name] += asked.ends
        problems += [f"{name}, from {start}: {problem}" for problem in asked.problems]
    print({name: dict(counted) for name, counted in ends.items()})
    assert problems == []
    total = sum(ends.values(), Counter[str]())
    assert min(total["done"], total["failed"]) > 0


async def test_readers_elsewhere_see_an_error_if_redis_is_emptied_when_a_process_dies(
    chat: Chat, held_gateway: HeldGateway
) -> None:
    asked = Round(chat, 1)
    with held_gateway.holding(END):
        async with asyncio.TaskGroup() as group:
            group.create_task(asked.converse(1, 0, (1, 1)))
            await asked.all_asked()
            process = chat.members[0].process
            assert process is not None
            process.kill()
            await chat.redis.empty()
            asked.healed.set()
    assert asked.problems == []
    assert asked.ends == {"failed": 2}
