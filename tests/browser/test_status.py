"""The status page in a browser: signing in, live figures, a snapshot, and a picture of every state."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace
from playwright.async_api import Browser, BrowserContext, Page, expect

from proxy.status.report import StatusReport
from tests.browser.inspection import find_faults, fits, looks, take_picture
from tests.browser.scripted_status import (
    CIRCUIT_OPEN,
    EMPTY,
    ERRORS,
    SOME_PROBLEMS,
    STATES,
    STATUS_KEY,
    ScriptedStatus,
    loaded,
    scripted_status,
    upstream,
)
from tests.browser.test_screens import DARK, ENGLISH, PHONE
from tests.browser.watch import Watch
from tests.pace import PATIENCE

LOOKS: dict[str, dict[str, Any]] = {
    "english": ENGLISH,
    "phone-dark-chinese": {**PHONE, **DARK},
    "chinese": {},
    "dark": {**DARK, **ENGLISH},
    "phone": {**PHONE, **ENGLISH},
}
"""The first two cover both languages, widths and colour schemes; the others are for visual inspection."""


@dataclass(frozen=True)
class Operator:
    """Opens the status page in separate browsers."""

    status: ScriptedStatus
    browser: Browser
    watch: Watch
    contexts: list[BrowserContext]

    async def page(self, path: str = "/status", **options: Any) -> Page:
        """Open a page, before signing in unless the options have a header."""
        wanted = {"locale": "zh-CN", "viewport": {"width": 1000, "height": 900}, **options}
        context = await self.browser.new_context(**wanted)
        context.set_default_timeout(1000 * PATIENCE)
        self.contexts.append(context)
        page = await context.new_page()
        self.watch.over(page)
        await page.goto(self.status.url + path)
        return page

    async def signed_in(self, **options: Any) -> Page:
        """Open a page that shows the status."""
        page = await self.page(**options)
        await sign_in(page)
        return page


async def sign_in(page: Page, key: str = STATUS_KEY) -> None:
    """Enter a key, and wait until the page that answers it has its stylesheets."""
    await page.locator("#key").fill(key)
    async with page.expect_navigation(wait_until="load"):
        await page.locator("#key").press("Enter")


@pytest_asyncio.fixture(loop_scope="session")
async def operator(browser: Browser, tmp_path: Path) -> AsyncIterator[Operator]:
    """A service with a status page, and its operator."""
    async with scripted_status(tmp_path) as status:
        operator = Operator(status, browser, Watch(status.url), [])
        yield operator
        for context in operator.contexts:
            await context.close()
    assert operator.watch.complaints == []


# --- signing in


async def test_the_key_opens_the_page_and_stays_out_of_reach_of_scripts_and_urls(operator: Operator) -> None:
    page = await operator.page(**ENGLISH)
    await expect(page.locator("#key")).to_be_focused()
    await page.keyboard.type(STATUS_KEY)
    await page.keyboard.press("Enter")
    await expect(page.locator("#summary")).to_contain_text("Ready")
    assert STATUS_KEY not in page.url
    assert await page.evaluate("document.cookie") == ""
    (cookie,) = await page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/status")
    assert STATUS_KEY not in cookie["value"]


async def test_a_wrong_key_shows_a_message(operator: Operator) -> None:
    page = await operator.page(**ENGLISH)
    await sign_in(page, "not-the-key")
    await expect(page.get_by_role("alert")).to_contain_text("This key is not correct")
    await take_picture(page, "status-wrong-key")
    assert await find_faults(page) == []
    await page.get_by_role("link", name="中文").click()
    await expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    await take_picture(page, "status-sign-in")
    assert await find_faults(page) == []
    await sign_in(page)
    await expect(page.locator("#summary")).to_contain_text("就绪")


async def test_after_signing_out_the_key_is_asked_again(operator: Operator) -> None:
    page = await operator.signed_in(**ENGLISH)
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.locator("#key")).to_be_visible()
    assert await page.context.cookies() == []


async def test_a_session_that_ends_leads_back_to_the_form(operator: Operator) -> None:
    page = await operator.signed_in()
    await expect(page.locator("#link")).to_have_attribute("data-state", "live")
    await page.context.clear_cookies()
    operator.status.is_broken = True  # ends the stream, and the next one is rejected
    await expect(page.locator("#key")).to_be_visible()


# --- live


async def test_the_figures_change_without_a_reload(operator: Operator) -> None:
    page = await operator.signed_in(**ENGLISH)
    await expect(page.locator("#link")).to_have_text("Live")
    await expect(page.locator("#callers")).to_contain_text("No requests in the last hour.")
    operator.status.report = loaded()
    await expect(page.locator("#callers tbody tr")).to_have_count(3)
    await expect(page.locator("#callers tbody tr").first).to_contain_text("ragflow")
    operator.status.report = CIRCUIT_OPEN
    await expect(page.locator("#upstreams .state").first).to_have_text("Circuit open")


BOXES = """(table) => [...table.rows].map(({ cells }) => [...cells].map((cell) => {
    const { top, right, bottom } = cell.getBoundingClientRect();
    return [top, right, bottom];
}))"""


@pytest.mark.parametrize("look", [{**DARK, **ENGLISH}, {}])
async def test_on_a_phone_the_numbers_of_a_caller_have_a_line_under_its_name(
    operator: Operator, look: dict[str, Any]
) -> None:
    operator.status.report = loaded()
    page = await operator.signed_in(**{**PHONE, **look, "viewport": {"width": 320, "height": 568}})
    heads, *rows = await page.locator("#callers table").evaluate(BOXES)
    for (_, _, bottom), *numbers in rows:
        assert all(top >= bottom for top, _, _ in numbers)
        assert [right for _, right, _ in numbers] == [right for _, right, _ in heads[1:]]
    assert await page.get_by_role("row").count() == len(rows) + 1
    await expect(page.get_by_role("rowheader")).to_contain_text(["ragflow", "chat", "batch-jobs"])
    await expect(page.get_by_role("columnheader")).to_have_count(6)
    assert await fits(page)
    assert await find_faults(page) == []
    await take_picture(page, f"status-narrow-{'dark' if look else 'light'}", whole=True)


BOXES_OF_FIGURES = """(parts) => parts.map((part) => {
    const { top, height } = part.getBoundingClientRect();
    return [part.localName, top, Math.round(height)];
})"""


@pytest.mark.parametrize("report", [EMPTY, loaded()], ids=["empty", "loaded"])
async def test_the_names_of_figures_have_one_line_and_are_level(
    operator: Operator, report: StatusReport
) -> None:
    operator.status.report = report
    page = await operator.signed_in(**ENGLISH)
    for width, rows in ((1000, 1), (780, 1), (760, 1), (700, 2), (390, 3)):
        await page.set_viewport_size({"width": width, "height": 900})
        boxes = await page.locator(".figures :is(dt, dd)").evaluate_all(BOXES_OF_FIGURES)
        for part in ("dt", "dd"):
            assert len({top for name, top, _ in boxes if name == part}) == rows
            assert len({height for name, _, height in boxes if name == part}) == 1
    keys = page.locator("figcaption b span")
    await expect(keys).to_have_count(2)
    assert await keys.evaluate_all("all => all.map((e) => e.getClientRects().length)") == [1, 1]


async def test_unchanged_elements_are_not_replaced(operator: Operator) -> None:
    page = await operator.signed_in()
    await expect(page.locator("#link")).to_have_attribute("data-state", "live")
    await page.evaluate("document.getElementById('problems').dataset.seen = 'yes'")
    operator.status.report = loaded()
    await expect(page.locator("#callers tbody tr")).to_have_count(3)
    await expect(page.locator("#problems")).to_have_attribute("data-seen", "yes")


async def test_without_a_connection_the_last_figures_stay_with_a_note(operator: Operator) -> None:
    operator.status.report = ERRORS
    page = await operator.signed_in(**ENGLISH)
    await expect(page.locator("#link")).to_have_text("Live")
    await page.context.set_offline(True)
    operator.status.is_broken = True  # the browser keeps an open stream, whose next part would say "Live"
    await expect(page.locator("#link")).to_contain_text("offline")
    await expect(page.locator("#callers tbody tr")).to_have_count(3)
    await take_picture(page, "status-7-offline", whole=True)
    assert await find_faults(page) == []
    operator.status.is_broken = False
    await page.context.set_offline(False)
    await expect(page.locator("#link")).to_have_text("Live")


async def test_without_javascript_the_page_is_a_snapshot(operator: Operator) -> None:
    operator.status.report = ERRORS
    page = await operator.signed_in(java_script_enabled=False, **ENGLISH)
    await expect(page.locator("#callers tbody tr")).to_have_count(3)
    await expect(page.locator("#link")).to_have_text("Snapshot; reload the page for newer figures")
    await take_picture(page, "status-8-no-javascript")


async def test_hostile_names_and_reasons_are_text(operator: Operator) -> None:
    hostile = "<img src=x onerror=alert(1)>\n\ndata: x</p><script>alert(2)</script>"
    page = await operator.signed_in(**ENGLISH)
    problem = replace(SOME_PROBLEMS[0], reason=hostile, caller=hostile, outcome=hostile)
    operator.status.report = replace(loaded(1, problem), upstreams=[upstream(hostile, "closed", x=1)])
    await expect(page.locator("#problems .reason")).to_contain_text("<img src=x onerror=alert(1)>")
    await expect(page.locator("#upstreams h3")).to_contain_text("<script>alert(2)</script>")
    await expect(page.locator("main img, main script")).to_have_count(0)


# --- every state


@pytest.mark.parametrize("look", looks(*LOOKS, least=2))
async def test_each_state_has_its_picture(operator: Operator, look: str) -> None:
    page = await operator.signed_in(**LOOKS[look])
    await expect(page.locator("#link")).to_have_attribute("data-state", "live")
    for name, report in STATES.items():
        operator.status.report = report
        shown = report.upstreams[0].attempts.get("2xx", 0)
        await expect(page.locator("#upstreams")).to_contain_text(f"{shown:,}" if shown else "embed")
        assert await find_faults(page) == []
        assert await fits(page)
        await take_picture(page, f"status-{look}-{name}", whole=True)
