"""The chat page for tests: its parts by name, and the actions of a visitor."""

import asyncio

from playwright.async_api import BrowserContext, CDPSession, Page

from tests.browser.inspection import find_faults, take_picture
from tests.browser.watch import Watch
from tests.pace import PATIENCE

RUN_BY_A_MESSAGE = "window.pwned"
"""The variable that a hostile message sets if it runs."""
NEAR_PX = 8
"""Distance from the end at which the page counts as scrolled to the end."""
AHEAD_SECONDS = PATIENCE
"""How far the clock of a page jumps when it is stopped: it cannot be stopped at a time that has passed."""
UNTIL = """(node) => new Promise((resolve) => {
    const observer = new MutationObserver(look);
    function look() {
        if (%s) {
            observer.disconnect();
            resolve();
        }
    }
    observer.observe(node, { attributes: true, childList: true, subtree: true });
    look();
})"""
"""Waits for a condition, which it checks at every change. Polling would be slower and miss short states."""


class ChatPage:
    """One page with a chat on it.

    Args:
        page: Where it is.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frame = page.locator("llm-chat .chat")
        self.input = page.locator("llm-chat textarea")
        self.button = page.locator("llm-chat .send")
        self.scroller = page.locator("llm-chat .scroller")
        self.turns = page.locator("llm-chat .turn")
        self.questions = page.locator("llm-chat .question")
        self.answer = page.locator("llm-chat .answer").last
        self.reasoning = page.locator("llm-chat details").last
        self.failure = page.locator("llm-chat .failure").last
        self.refusal = page.locator("llm-chat .notice.wrong")
        self.link_notice = page.locator("llm-chat .notice[role=status]")
        self.to_end = page.locator("llm-chat .to-end")
        self.empty = page.locator("llm-chat .empty")

    @classmethod
    async def open(cls, context: BrowserContext, url: str, watch: Watch) -> "ChatPage":
        """Go to a page, and wait until its chat is connected."""
        page = await context.new_page()
        watch.over(page)
        await page.goto(url)
        chat = cls(page)
        await chat.connected()
        return chat

    async def connected(self) -> None:
        """Wait for the stream."""
        await self._until("node.dataset.link === 'open'")

    async def in_state(self, state: str) -> None:
        """Wait for a state of the last turn; "idle" is none."""
        await self._until(f"node.dataset.state === '{state}'")

    async def answered(self, count: int) -> None:
        """Wait for the end of some answers."""
        await self._until(f"node.querySelectorAll('.took').length === {count}")

    async def _until(self, condition: str) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.frame.evaluate(UNTIL % condition)

    async def ask(self, text: str) -> None:
        """Write a question and send it by Enter."""
        await self.input.fill(text)
        await self.input.press("Enter")

    async def stop_clock(self) -> float:
        """Let time pass on the page only as `page.clock` says, and return its time in milliseconds."""
        await self.page.clock.install()
        now = await self.page.evaluate("Date.now()")
        await self.page.clock.pause_at(now / 1000 + AHEAD_SECONDS)
        return float(await self.page.evaluate("Date.now()"))

    async def keyboard(self) -> CDPSession:
        """Return Chromium's input protocol, which can act as an input method."""
        return await self.page.context.new_cdp_session(self.page)

    async def at_end(self) -> None:
        """Wait until the end of the text is visible."""
        async with asyncio.timeout(PATIENCE):
            while (
                await self.scroller.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight") > NEAR_PX
            ):
                pass

    async def shot(self, name: str) -> None:
        """Save a picture for visual inspection."""
        await take_picture(self.page, name)

    async def faults(self) -> list[str]:
        """Return the findings of axe."""
        return await find_faults(self.page)
