"""Draw the pictures of the documents again.

    python -m tests.pictures

It serves the demonstration, runs `doctor`, asks questions for a minute, and photographs the chat and the
status page. It needs Chromium.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, async_playwright

from tests.browser.conftest import OPTIONS, find_chromium
from tests.pictures import pages, ragflow

IMAGES: Final = ragflow.ROOT / "docs/images"
SECONDS: Final = 60
ASKERS: Final = 3
CARDS: Final = 3
WINDOW: Final = (760, 900)


async def draw() -> None:
    """Write every picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with chromium() as browser:
            async with ragflow.service(folder) as url:
                await draw_ragflow(browser, url)
                for language in ragflow.LANGUAGES:
                    pages.write(await pages.chat(browser, url, language), IMAGES / f"chat{language}.png")
            for language in ragflow.LANGUAGES:
                picture = await pages.busy_status(browser, folder, language)
                pages.write(picture, IMAGES / f"status{language}.png")


async def draw_ragflow(browser: Browser, url: str) -> None:
    """Write the pictures of `docs/ragflow.md`."""
    for language in ragflow.LANGUAGES:
        write(f"ragflow-form{language}.svg", ragflow.draw_forms(language))
        session = await ragflow.doctor(url, language)
        write(f"ragflow-doctor{language}.svg", ragflow.draw_session(session, language))
    write("ragflow-log.svg", ragflow.draw_line(await ragflow.request_line(url)))
    async with asyncio.TaskGroup() as group:
        askers = [group.create_task(ask_again(url)) for _ in range(ASKERS)]
        await asyncio.sleep(SECONDS)
        for language in ragflow.LANGUAGES:
            page = await pages.open_status(browser, url, ragflow.STATUS_KEY, language, WINDOW)
            pages.write(await pages.first_cards(page, CARDS), IMAGES / f"ragflow-status{language}.png")
        for asker in askers:
            asker.cancel()


async def ask_again(url: str) -> None:
    """Ask questions until it is cancelled."""
    while True:
        await ragflow.ask(url)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run a browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=OPTIONS)
        yield browser
        await browser.close()


def write(name: str, text: str) -> None:
    """Write a drawing."""
    (IMAGES / name).write_text(text, encoding="utf-8")


asyncio.run(draw())
