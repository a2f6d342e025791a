"""How soon the page shows the model's text, and how long it keeps the browser busy."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from proxy.app import create_app
from proxy.app_parts import EXTENSION, app_parts
from proxy.chat.event import Event
from proxy.chat.service import ChatService
from proxy.settings import load_settings
from tests.browser import samples
from tests.browser.conftest import Stage
from tests.browser.scripted_chat import ScriptedChat
from tests.browser.tasks import traced
from tests.browser.watch import Watch
from tests.chat.conftest import KEY as ENCRYPTION_KEY
from tests.conftest import KEY, SETTINGS, STATIC
from tests.loopback import serve_on_loopback, until
from tests.pace import PATIENCE, paced
from tests.raw_upstream import Conversation, raw_upstream
from tests.redis_server import redis_server

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("browser")]

SECRET = "a secret of the sessions of one test"
TASK_MS_MAX = 100
ATTEMPTS = 3
"""Several, because a busy machine slows down only some of them."""
FIRST_PARAGRAPH_SECONDS = 0.3
CONVERSATIONS, TURNS = 20, 100
SENTENCE = "第一句话说完了。"
LATER = (2**40, 0)
"""The position after every event."""
WATCH_FOR = """([sentence]) => {
    const log = document.querySelector("llm-chat").shadowRoot.querySelector(".log");
    window.shownAt = new Promise((resolve) => {
        new MutationObserver(() => {
            const found = [...log.lastElementChild.querySelectorAll(".answer p")]
                .some((paragraph) => paragraph.textContent.includes(sentence));
            if (found) {
                requestAnimationFrame(() => resolve(Date.now() / 1000));
            }
        }).observe(log, { childList: true, subtree: true });
    });
}"""
OWN_CHANNEL = "fetch('session').then((response) => response.json()).then(({ channel }) => channel)"


async def test_no_task_is_long_while_an_answer_of_100_kb_is_written_and_after_a_reload(stage: Stage) -> None:
    page = await stage.open()
    part = f"{samples.CODE}\n\n{'段落，' * 60}。\n\n{samples.TABLE}{samples.FORMULA}\n"
    blocks = samples.blocks("left", part * (100_000 // len(part.encode())))
    longest: list[float] = []
    while len(longest) < ATTEMPTS and min(longest, default=paced(TASK_MS_MAX)) >= paced(TASK_MS_MAX):
        stage.chat.ask("长")
        stage.chat.state("answering")
        async with traced(stage.browser) as tasks:
            for block in blocks:
                stage.chat.message(block)
                await asyncio.sleep(0)
            stage.chat.state("done", seconds=1)
            await page.answered(len(longest) + 1)
        longest.append(max(tasks.milliseconds))
    assert min(longest) < paced(TASK_MS_MAX)
    answers, longest = len(longest), []
    while len(longest) < ATTEMPTS and min(longest, default=paced(TASK_MS_MAX)) >= paced(TASK_MS_MAX):
        async with traced(stage.browser) as tasks:
            await page.page.reload()
            await page.answered(answers)
        longest.append(max(tasks.milliseconds))
    assert min(longest) < paced(TASK_MS_MAX)


@dataclass(frozen=True)
class Speaking:
    """A service whose model sends one sentence and starts another one."""

    stage: Stage
    chat: ChatService
    said: list[float]
    """When each piece was sent; the second one ends the sentence."""
    goes_on: asyncio.Event
    """Lets the model end its answer."""


@asynccontextmanager
async def speaking(browser: Browser, folder: Path, shared: str) -> AsyncIterator[Speaking]:
    """Run a service with a model that sends one sentence, starts another one, and waits."""
    said: list[float] = []
    goes_on = asyncio.Event()

    async def answer(talk: Conversation) -> None:
        await talk.start_stream()
        for text in (SENTENCE[:-2], SENTENCE[-2:], "后面还有"):
            said.append(time.time())
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "x1"}
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            await talk.chunk(b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n")
        await goes_on.wait()
        await talk.chunk(b"data: [DONE]\n\n")
        await talk.end()

    path = folder / "proxy.toml"
    async with raw_upstream(answer) as upstream:
        more = f'[chat]\nsecret = "{SECRET}"\n{shared}'
        path.write_text(
            SETTINGS.format(key=KEY, upstream=upstream.url, credential=STATIC, options="", more=more)
        )
        app = create_app(load_settings(path, {}))
        async with serve_on_loopback(app) as url:
            stage = Stage(ScriptedChat(), url, browser, Watch(url), [])
            try:
                await stage.context()
                await until(lambda: EXTENSION in app.extensions)
                chat = app_parts(app).snapshots.chat
                assert chat is not None
                yield Speaking(stage, chat, said, goes_on)
            finally:
                for context in stage.contexts:
                    await context.close()


async def store(chat: ChatService, session: str) -> None:
    """Store many long conversations of a visitor, one of them in the channel of the session."""
    for turn in range(TURNS):
        for block in (f"<div class='right'><p>问题 {turn}</p></div>", *samples.blocks("left", samples.PROSE)):
            event = Event({"message": block}, "message_event")
            await chat.broker.publish(session, event, mark="turn" if "right" in block[:12] else None)
        done = {"state": "done", "at": int(time.time() * 1000), "seconds": 1}
        await chat.broker.publish(session, Event(done, "state_event"))
    for number in range(CONVERSATIONS):
        channel = f"{number}-{session}" if number else session
        await chat.conversations.note(session, channel, f"对话 {number}")
        await chat.broker.copy(session, channel, LATER)


async def first_paragraph_seconds(browser: Browser, folder: Path, shared: str) -> float:
    """Return how long after the model's first sentence its paragraph is shown, in a long conversation."""
    async with speaking(browser, folder, shared) as speaker:
        page = await speaker.stage.open()
        await store(speaker.chat, await page.page.evaluate(OWN_CHANNEL))
        await page.page.reload()
        await page.answered(TURNS)
        await page.page.locator("llm-chat .conversations-toggle").click()
        await expect(page.page.locator("llm-chat .list li")).to_have_count(CONVERSATIONS)
        await page.page.evaluate(WATCH_FOR, [SENTENCE])
        await page.ask("问")
        shown = await page.page.evaluate("window.shownAt")
        speaker.goes_on.set()
        await page.answered(TURNS + 1)
        assert speaker.stage.watch.complaints == []
        return float(shown - speaker.said[1])


@pytest.mark.parametrize("where", ["memory", "redis"])
async def test_the_first_paragraph_is_shown_soon_after_the_models_first_sentence(
    browser: Browser, tmp_path: Path, where: str
) -> None:
    longest, shared = paced(FIRST_PARAGRAPH_SECONDS), ""
    async with AsyncExitStack() as stack:
        if where == "redis":
            redis = await stack.enter_async_context(redis_server(tmp_path))
            shared = f'[shared]\nredis_url = "{redis.url}"\nencryption_key = "{ENCRYPTION_KEY}"\n'
            shared += f"redis_timeout = {PATIENCE}\n"
        waits: list[float] = []
        while len(waits) < ATTEMPTS and min(waits, default=longest) >= longest:
            waits.append(await first_paragraph_seconds(browser, tmp_path, shared))
        assert min(waits) < longest
