"""Draw the pictures of `docs/ragflow.md` again.

    python -m tests.pictures

It serves the demonstration, runs `doctor` and asks questions for a minute. It needs Chromium.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Final

from playwright.async_api import FloatRect, async_playwright

from tests.browser.conftest import OPTIONS, find_chromium
from tests.pictures import ragflow

IMAGES: Final = ragflow.ROOT / "docs/images"
SECONDS: Final = 60
ASKERS: Final = 3
CARDS: Final = 3
WIDTH: Final = 760


async def draw() -> None:
    """Write every picture."""
    with tempfile.TemporaryDirectory() as folder:
        async with ragflow.service(Path(folder)) as url:
            for language in ragflow.LANGUAGES:
                write(f"ragflow-form{language}.svg", ragflow.draw_forms(language))
                session = await ragflow.doctor(url, language)
                write(f"ragflow-doctor{language}.svg", ragflow.draw_session(session, language))
            write("ragflow-log.svg", ragflow.draw_line(await ragflow.request_line(url)))
            async with asyncio.TaskGroup() as group:
                askers = [group.create_task(ask_again(url)) for _ in range(ASKERS)]
                await asyncio.sleep(SECONDS)
                await photograph(url)
                for asker in askers:
                    asker.cancel()


async def ask_again(url: str) -> None:
    """Ask questions until it is cancelled."""
    while True:
        await ragflow.ask(url)


async def photograph(url: str) -> None:
    """Take pictures of the first cards of the status page."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=OPTIONS)
        for language in ragflow.LANGUAGES:
            page = await browser.new_page(viewport={"width": WIDTH, "height": 1200})
            await page.goto(f"{url}/status?lang={'zh' if language else 'en'}")
            await page.fill("input[type=password]", ragflow.STATUS_KEY)
            await page.press("input[type=password]", "Enter")
            card = f"document.querySelectorAll('main section')[{CARDS - 1}]"
            await page.wait_for_function(card)
            bottom = await page.evaluate(f"{card}.getBoundingClientRect().bottom")
            clip: FloatRect = {"x": 0, "y": 0, "width": WIDTH, "height": bottom + 16}
            await page.screenshot(path=IMAGES / f"ragflow-status{language}.png", clip=clip)
        await browser.close()


def write(name: str, text: str) -> None:
    """Write a picture."""
    (IMAGES / name).write_text(text, encoding="utf-8")


asyncio.run(draw())
