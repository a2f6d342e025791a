"""Photographs of our pages, each in a fixed window: the chat, and the status page."""

import io
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.async_api import Browser, FloatRect, Page, expect

from tests.browser.chat_page import ChatPage
from tests.browser.scripted_status import CIRCUIT_OPEN, STATUS_KEY, scripted_status
from tests.browser.watch import Watch
from tests.pace import PATIENCE

LOCALES: Final = {"": "en-GB", ".zh-CN": "zh-CN"}
"""The browser's languages by the end of the file name."""
QUESTIONS: Final = {"": "What does this page do?", ".zh-CN": "这个页面是做什么的？"}
CHAT_WINDOW: Final = (1000, 960)
STATUS_WINDOW: Final = (780, 900)
COLOURS: Final = 256


async def chat(browser: Browser, url: str, language: str) -> bytes:
    """Ask the demonstration model a question, and return a picture of its answer."""
    width, height = CHAT_WINDOW
    context = await browser.new_context(
        locale=LOCALES[language], timezone_id="UTC", viewport={"width": width, "height": height}
    )
    page = await ChatPage.open(context, f"{url}/chat/", Watch(url))
    await page.ask(QUESTIONS[language])
    await page.answered(1)
    picture = await page.page.screenshot()
    await context.close()
    return picture


async def busy_status(browser: Browser, folder: Path, language: str) -> bytes:
    """Return a picture of the whole status page of a busy service, one of whose upstreams fails."""
    async with scripted_status(folder) as status:
        status.report = CIRCUIT_OPEN
        page = await open_status(browser, status.url, STATUS_KEY, language, STATUS_WINDOW)
        picture = await page.screenshot(full_page=True)
        await page.close()
        return picture


async def first_cards(page: Page, count: int) -> bytes:
    """Return a picture of the status page from its top to the end of a card."""
    box = await page.locator("main section").nth(count - 1).bounding_box()
    assert box is not None
    assert page.viewport_size is not None
    height = box["y"] + box["height"] + 16
    clip: FloatRect = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": height}
    return await page.screenshot(clip=clip, full_page=True)


async def open_status(browser: Browser, url: str, key: str, language: str, window: tuple[int, int]) -> Page:
    """Return a status page that shows live figures."""
    width, height = window
    page = await browser.new_page(locale=LOCALES[language], viewport={"width": width, "height": height})
    await page.goto(f"{url}/status")
    await page.fill("#key", key)
    await page.press("#key", "Enter")
    await expect(page.locator("#link")).to_have_attribute("data-state", "live", timeout=1000 * PATIENCE)
    return page


def write(picture: bytes, path: Path) -> None:
    """Write a picture with so few colours that the file is small."""
    photograph = Image.open(io.BytesIO(picture)).convert("RGB")
    few = photograph.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
