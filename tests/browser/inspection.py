"""Inspection of any page: pictures, accessibility faults, and horizontal scrolling.

Each inspection waits for the page's load event: before it, the page may have no stylesheet yet.
"""

import os
from pathlib import Path
from typing import Final

from axe_playwright_python.base import AXE_SCRIPT  # type: ignore[import-untyped]
from playwright.async_api import Page

SCREENSHOTS = Path(__file__).parents[2] / "artifacts" / "screenshots"
PICTURES: Final = bool(os.environ.get("PROXY_TEST_PICTURES")) or os.environ.get("PROXY_TEST_REQUIRE") == "all"
"""Whether this run takes pictures of every state in every look."""
RUN_AXE: Final = """(options) => window.axe.run(options).then(({ violations }) => violations.flatMap(
    ({ id, nodes }) => nodes.map(({ html, failureSummary }) =>
        `${id}: ${html.slice(0, 200)} ${failureSummary.slice(0, 300)}`)))"""
AXE_OPTIONS: Final = {"resultTypes": ["violations"], "rules": {"color-contrast-enhanced": {"enabled": True}}}


def looks(*names: str, least: int = 1) -> list[str]:
    """Return the looks to test: only the first ones, unless pictures are wanted."""
    return [*names] if PICTURES else [*names[:least]]


async def take_picture(page: Page, name: str, *, whole: bool = False) -> None:
    """Save a picture of the window or of the whole page for visual inspection."""
    if not PICTURES:
        return
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    await page.wait_for_load_state("load")
    await page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole)


async def find_faults(page: Page) -> list[str]:
    """Return the findings of axe, including best practices and a contrast of 7:1."""
    await page.wait_for_load_state("load")
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE_SCRIPT)
    faults: list[str] = await page.evaluate(RUN_AXE, AXE_OPTIONS)
    return faults


async def fits(page: Page) -> bool:
    """Return whether no part of the page is wider than the window."""
    await page.wait_for_load_state("load")
    wide = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(await page.evaluate(wide)) <= 0
