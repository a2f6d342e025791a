"""One Chromium for all browser tests; each test has a scripted chat and separate visitors."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, async_playwright, expect

from tests.browser.chat_page import ChatPage
from tests.browser.scripted_chat import ScriptedChat
from tests.browser.watch import Watch
from tests.conftest import require
from tests.loopback import serve_on_loopback
from tests.pace import PATIENCE

OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser lives on one loop, and so do the tests that drive it; they run in a phase of their own."""
    for item in items:
        if "tests/browser/" in item.path.as_posix() and item.get_closest_marker("asyncio") is not None:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            item.add_marker(pytest.mark.browser)


def find_chromium() -> str:
    """Return the path of Debian's Chromium: of its headless shell, which costs half, if that is installed."""
    program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    require("chromium", found=program is not None)
    return str(program)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium as Debian packages it."""
    expect.set_options(timeout=1000 * PATIENCE)
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=find_chromium(), args=OPTIONS)
        yield running
        await running.close()


@dataclass(frozen=True)
class Stage:
    """A scripted chat on loopback, and pages that show it."""

    chat: ScriptedChat
    url: str
    browser: Browser
    watch: Watch
    contexts: list[BrowserContext]

    async def context(self, **options: Any) -> BrowserContext:
        """Return a new visitor: Chinese, on a desktop, unless the options differ."""
        wanted = {"locale": "zh-CN", "viewport": {"width": 1280, "height": 800}, **options}
        context = await self.browser.new_context(**wanted)
        context.set_default_timeout(1000 * PATIENCE)
        self.contexts.append(context)
        return context

    async def open(self, path: str = "/chat/", **options: Any) -> ChatPage:
        """Return a visitor's page whose stream is open."""
        context = await self.context(**options)
        return await ChatPage.open(context, self.url + path, self.watch)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(browser: Browser) -> AsyncIterator[Stage]:
    """Run a chat and its visitors until the end of the test."""
    chat = ScriptedChat()
    with chat.visited():
        async with serve_on_loopback(chat.app) as url:
            stage = Stage(chat, url, browser, Watch(url), [])
            try:
                yield stage
            finally:
                for context in stage.contexts:
                    await context.close()
                chat.drop()
    assert stage.watch.complaints == []
