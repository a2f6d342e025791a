"""The description of the API in a browser: readable in both languages, in the dark and on a phone."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.browser.inspection import find_faults, fits, looks, take_picture
from tests.browser.scripted_status import scripted_status
from tests.browser.test_screens import DARK, ENGLISH, PHONE
from tests.browser.watch import Watch

LOOKS: dict[str, tuple[dict[str, Any], str]] = {
    "chinese-dark": ({"locale": "zh-CN", **DARK}, "English"),
    "phone": ({**PHONE, **ENGLISH}, "中文"),
    "english": (ENGLISH, "中文"),
}


@pytest.mark.parametrize("name", looks(*LOOKS, least=2))
async def test_the_page_has_its_picture(browser: Browser, tmp_path: Path, name: str) -> None:
    look, other = LOOKS[name]
    async with scripted_status(tmp_path) as service:
        watch = Watch(service.url)
        context = await browser.new_context(**look)
        page = await context.new_page()
        watch.over(page)
        await page.goto(f"{service.url}/docs")
        await expect(page.get_by_text("/v1/chat/completions", exact=True).first).to_be_visible()
        assert await find_faults(page) == []
        assert await fits(page)
        await take_picture(page, f"docs-{name}")
        await page.get_by_role("link", name=other).click()
        lang = "zh-CN" if other == "中文" else "en"
        await expect(page.locator("html")).to_have_attribute("lang", lang)
        await context.close()
        assert watch.complaints == []
