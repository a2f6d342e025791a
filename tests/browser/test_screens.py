"""Pictures of every state for visual inspection. Axe checks each, and nothing scrolls horizontally."""

from typing import Any

import pytest
from playwright.async_api import expect

from tests.browser import samples
from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Stage
from tests.browser.inspection import looks

PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
DARK: dict[str, Any] = {"color_scheme": "dark"}
ENGLISH: dict[str, Any] = {"locale": "en-GB"}
LOOKS = {"dark": DARK, "phone": PHONE, "desktop": {}, "english": ENGLISH}
"""The first two cover both widths and both colour schemes; the others are for visual inspection."""


async def fits(page: ChatPage) -> bool:
    """Return whether only code and formulas scroll horizontally."""
    wide = await page.page.evaluate(
        """() => {
            const inner = document.querySelector("llm-chat").shadowRoot
                .querySelectorAll(".scroller, .column, .header, .foot, .prose, .question");
            const all = [...inner, document.documentElement];
            return all.filter((e) => e.scrollWidth > e.clientWidth + 1).length;
        }"""
    )
    return bool(wide == 0)


@pytest.mark.parametrize("look", looks(*LOOKS, least=2))
async def test_each_state_has_its_picture(stage: Stage, look: str) -> None:
    page = await stage.open(**LOOKS[look])
    await expect(page.empty).to_be_visible()
    await page.shot(f"{look}-1-empty")
    assert await page.faults() == []
    english = look == "english"
    stage.chat.ask("What is a large language model?" if english else "用三句话说明什么是大语言模型。")
    await page.in_state("waiting")
    await page.shot(f"{look}-2-waiting")
    stage.chat.state("thinking")
    stage.chat.write("describe", samples.ENGLISH_REASONING if english else samples.REASONING)
    await page.in_state("thinking")
    await page.shot(f"{look}-3-thinking")
    assert await page.faults() == []
    stage.chat.state("answering")
    first, rest = (samples.ENGLISH if english else samples.PROSE).split("\n\n", 1)
    stage.chat.write("left", first)
    await page.in_state("answering")
    await page.shot(f"{look}-4-answering")
    stage.chat.say("left", "<p>\n</p>")
    stage.chat.write("left", rest if english else rest + samples.LISTS)
    stage.chat.state("done", seconds=7.2)
    await page.in_state("idle")
    await page.shot(f"{look}-5-done")
    stage.chat.turn(
        "palindrome" if english else "写一个判断回文的函数", samples.CODE + samples.TABLE + samples.FORMULA
    )
    await expect(page.turns).to_have_count(2)
    await page.in_state("idle")
    await page.shot(f"{look}-6-code-table-formula")
    assert await fits(page)
    await page.scroller.evaluate("e => e.scrollTo(0, 0)")
    await expect(page.to_end).to_be_visible()
    assert await page.faults() == []


@pytest.mark.parametrize("look", looks("dark", "phone", "desktop", least=2))
async def test_each_failure_has_its_picture(stage: Stage, look: str) -> None:
    page = await stage.open(**LOOKS[look])
    stage.chat.ask("讲一个很长的故事")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>从前有一座山，山上有一座庙。</p>")
    stage.chat.state("stopped")
    await page.in_state("idle")
    stage.chat.ask("它安全吗？")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>首先需要说明，</p>")
    stage.chat.message("<div class='error'>上游服务暂时繁忙(10012),没有返回完整的结果。</div>")
    stage.chat.state("failed")
    await expect(page.failure).to_be_visible()
    await page.shot(f"{look}-7-stopped-and-error")
    await page.page.context.set_offline(True)
    await expect(page.link_notice).to_be_visible()
    await page.shot(f"{look}-8-offline")
    assert await page.faults() == []


@pytest.mark.parametrize("look", ["desktop", "phone"])
async def test_long_answers_have_their_pictures(stage: Stage, look: str) -> None:
    page = await stage.open(**LOOKS[look])
    stage.chat.turn("写一篇长文", samples.LONG_CHINESE)
    await page.in_state("idle")
    await expect(page.answer.locator("p")).to_have_count(8)
    await page.shot(f"{look}-9-long-chinese")
    stage.chat.turn("再写一段很长的代码", samples.LONG_CODE)
    await page.in_state("idle")
    await expect(page.turns).to_have_count(2)
    await page.scroller.evaluate("e => e.scrollTo(0, e.scrollHeight / 2)")
    await expect(page.to_end).to_be_visible()
    await page.input.fill("一行\n两行\n三行\n四行\n五行\n六行\n七行")
    await page.shot(f"{look}-10-long-code-and-input")
    await page.input.fill("")
    stage.chat.turn("宽表", samples.WIDE_TABLE)
    await expect(page.turns).to_have_count(3)
    await page.to_end.click()
    await page.shot(f"{look}-11-wide-table")
    assert await fits(page)
