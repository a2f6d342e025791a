"""What people and axe look at on any page: pictures, faults of accessibility, and scrolling sideways."""

from pathlib import Path

from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Page

SCREENSHOTS = Path(__file__).parents[2] / "artifacts" / "screenshots"


async def take_picture(page: Page, name: str, *, whole: bool = False) -> None:
    """Keep a picture of the window or of the whole page, for people to look at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole)


async def find_faults(page: Page) -> list[str]:
    """What axe finds, best practices and a contrast of 7:1 included."""
    options = {"resultTypes": ["violations"], "rules": {"color-contrast-enhanced": {"enabled": True}}}
    results = await Axe().run(page, options=options)
    return [
        f"{found['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for found in results.response["violations"]
        for node in found["nodes"]
    ]


async def fits(page: Page) -> bool:
    """Whether no part of the page is wider than the window."""
    wide = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(await page.evaluate(wide)) <= 0
