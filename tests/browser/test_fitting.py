"""What is wider than the column: tables and formulas on a phone, in narrow windows, with enlarged text."""

import asyncio
from typing import Any

import pytest
from playwright.async_api import expect

from tests.browser import samples
from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Stage
from tests.browser.test_screens import DARK, ENGLISH, PHONE, fits
from tests.pace import PATIENCE

NARROW: dict[str, Any] = {**PHONE, "viewport": {"width": 320, "height": 568}}
ENLARGED: dict[str, Any] = {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2}
"""A desktop at 200 %."""
BROKEN_WORDS = r"""(answer) => {
    const texts = document.createTreeWalker(answer, NodeFilter.SHOW_TEXT);
    const broken = [];
    while (texts.nextNode()) {
        const { data } = texts.currentNode;
        for (const { index, 0: word } of data.matchAll(/[\w.$¥]+/g)) {
            const range = document.createRange();
            range.setStart(texts.currentNode, index);
            range.setEnd(texts.currentNode, index + word.length);
            if (new Set([...range.getClientRects()].map(({ top }) => top)).size > 1) {
                broken.push(word);
            }
        }
    }
    return broken;
}"""


async def answered(stage: Stage, markdown: str, **options: Any) -> ChatPage:
    """A page with one answer."""
    page = await stage.open(**options)
    stage.chat.turn("问", markdown)
    await page.in_state("idle")
    return page


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("phone", PHONE),
        ("narrow-dark", {**NARROW, **DARK}),
        ("narrow-english", {**NARROW, **ENGLISH}),
        ("enlarged", ENLARGED),
        ("desktop-english", {**ENGLISH, **DARK}),
    ],
)
async def test_no_word_in_a_table_of_nine_columns_is_broken(
    stage: Stage, name: str, options: dict[str, Any]
) -> None:
    models = samples.ENGLISH_MODELS if "english" in name else samples.MODELS
    page = await answered(stage, models + samples.WIDE_TABLE, **options)
    await expect(page.answer.locator("table")).to_have_count(2)
    assert await page.answer.evaluate(BROKEN_WORDS) == []
    assert await fits(page)
    await page.shot(f"fitting-{name}-1-end")
    await page.scroller.evaluate("e => e.scrollTo(0, 0)")
    await page.shot(f"fitting-{name}-2-beginning")
    assert await page.faults() == []


async def test_a_table_shows_a_labelled_card_for_each_row_only_while_it_is_too_wide(stage: Stage) -> None:
    page = await answered(stage, samples.MODELS + samples.TABLE, **PHONE)
    price = page.answer.locator("table").first.locator("tbody tr").first.locator("td").nth(5)
    label = "e => getComputedStyle(e, '::before').content"
    await expect(page.answer.locator("thead").first).to_be_hidden()
    assert await price.evaluate(label) == '"输入价格"'
    await expect(page.answer.locator("thead").last).to_be_visible()
    await page.page.set_viewport_size({"width": 1280, "height": 800})
    await expect(page.answer.locator("thead").first).to_be_visible()
    assert await price.evaluate(label) == "none"
    await page.page.set_viewport_size({"width": 390, "height": 844})
    await expect(page.answer.locator("thead").first).to_be_hidden()
    await page.at_end()


async def test_the_end_of_an_answer_stays_in_sight_when_its_table_becomes_cards(stage: Stage) -> None:
    page = await answered(stage, samples.LONG_CHINESE + samples.MODELS, **PHONE)
    await page.at_end()
    await expect(page.to_end).to_be_hidden()
    await page.page.set_viewport_size({"width": 320, "height": 568})
    await page.at_end()
    await expect(page.to_end).to_be_hidden()


async def test_a_copied_table_has_neither_labels_nor_marks(stage: Stage) -> None:
    page = await answered(
        stage, "| 文件 | 说明 |\n|---|---|\n| proxy/chat/page/conversations.css | 列表 |\n\n", **PHONE
    )
    await page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.answer.locator("xpath=..").locator(".ending .action").first.click()
    copied = await page.page.evaluate("navigator.clipboard.readText()")
    assert copied == "| 文件 | 说明 |\n| --- | --- |\n| proxy/chat/page/conversations.css | 列表 |"


@pytest.mark.parametrize("options", [PHONE, {}])
async def test_a_long_formula_within_a_line_can_be_read_to_its_end_by_keyboard(
    stage: Stage, options: dict[str, Any]
) -> None:
    page = await answered(stage, f"和 ${samples.SUM}$ 是，而 $a+b$ 短。\n\n$$c+d$$\n\n", **options)
    long, short = page.answer.locator(".formula").first, page.answer.locator(".formula").last
    await expect(long).to_have_attribute("tabindex", "0")
    await expect(long).to_have_attribute("aria-label", "公式")
    await expect(short).not_to_have_attribute("tabindex", "0")
    await expect(page.answer.locator(".formula")).to_have_count(2)
    await long.focus()
    await page.page.keyboard.press("ArrowRight")
    async with asyncio.timeout(PATIENCE):
        while await long.evaluate("e => e.scrollLeft") == 0:
            pass
    await long.evaluate("e => e.scrollTo({ left: e.scrollWidth, behavior: 'instant' })")
    ends = "e => [e.firstChild, e].map((node) => node.getBoundingClientRect().right)"
    formula, edge = await long.evaluate(ends)
    assert formula <= edge + 1
    assert await fits(page)
    assert await page.faults() == []


async def test_only_code_that_scrolls_stops_the_tab_key(stage: Stage) -> None:
    page = await answered(stage, "```\nshort\n```\n\n```\n" + "long " * 60 + "\n```\n")
    await expect(page.answer.locator("pre")).to_have_count(2)
    await expect(page.answer.locator("pre").last).to_have_attribute("tabindex", "0")
    await expect(page.answer.locator("pre").first).not_to_have_attribute("tabindex", "0")
    assert await page.faults() == []


@pytest.mark.parametrize("options", [{**NARROW, **ENGLISH}, ENLARGED])
async def test_in_a_low_window_the_greeting_is_read_from_its_beginning_and_the_first_answer_followed(
    stage: Stage, options: dict[str, Any]
) -> None:
    page = await stage.open(**options)
    await expect(page.empty.locator("h2")).to_be_in_viewport(ratio=1)
    await page.scroller.evaluate("e => e.scrollTo(0, 40)")
    await page.scroller.evaluate("e => e.scrollTo(0, 10)")
    stage.chat.turn("问", samples.LONG_CHINESE)
    await page.in_state("idle")
    await page.at_end()
    await expect(page.to_end).to_be_hidden()
