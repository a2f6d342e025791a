"""The page with a screen reader, with a keyboard, and without motion; its language, colours and scrolling."""

from typing import Any

import pytest
from playwright.async_api import expect

from tests.browser import samples
from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Stage
from tests.browser.test_screens import DARK, ENGLISH, LOOKS, PHONE


async def test_everything_works_by_keyboard(stage: Stage) -> None:
    page = await stage.open()
    await expect(page.input).to_be_focused()
    await page.page.keyboard.type("你好")
    await page.page.keyboard.press("Enter")
    await page.in_state("waiting")
    await expect(page.input).to_be_focused()
    stage.chat.state("thinking")
    stage.chat.say("describe", "<p>想。\n</p>")
    stage.chat.state("answering")
    stage.chat.write("left", samples.CODE)
    await page.in_state("answering")
    await page.page.keyboard.press("Tab")
    await expect(page.button).to_be_focused()
    await page.page.keyboard.press("Enter")
    await page.in_state("idle")
    assert stage.chat.posts == ["dialogue", "stop"]
    await page.page.locator("llm-chat .fresh").focus()
    reached = []
    for _ in range(12):
        await page.page.keyboard.press("Tab")
        reached.append(await page.page.evaluate(FOCUSED))
    question, answer = "action, action", "summary, action, pre, action, action, action retry"
    assert ", ".join(reached) == f"tool language, tool theme, scroller, {question}, {answer}, textarea"


FOCUSED = """() => {
    const node = document.querySelector("llm-chat").shadowRoot.activeElement;
    return node.className || node.localName;
}"""


async def test_screen_readers_get_the_answer_as_a_log_the_reasoning_not_at_all_and_the_state_once(
    stage: Stage,
) -> None:
    page = await stage.open()
    log = page.page.get_by_role("log")
    await expect(log).to_have_attribute("aria-busy", "false")
    await page.ask("问")
    await page.in_state("waiting")
    stage.chat.state("thinking")
    stage.chat.say("describe", "<p>想。\n</p>")
    await expect(log).to_have_attribute("aria-busy", "true")
    status = page.page.locator("llm-chat .status")
    await expect(status).to_have_text("正在思考")
    await expect(page.reasoning).to_have_attribute("aria-live", "off")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>好。\n</p>")
    await expect(status).to_have_text("正在回答")
    stage.chat.state("done", seconds=1)
    await expect(status).to_have_text("回答完毕")
    await expect(log).to_have_attribute("aria-busy", "false")
    await expect(log.get_by_role("heading", level=2)).to_have_text(["你的问题", "回答"])


async def test_an_old_failure_is_not_announced_again(stage: Stage) -> None:
    stage.chat.ask("问")
    stage.chat.message("<div class='error'>模型暂时繁忙</div>")
    stage.chat.state("failed")
    page = await stage.open()
    await page.page.reload()
    await expect(page.failure).to_be_visible()
    stage.chat.turn("又问", "好。\n")
    await expect(page.answer).to_be_visible()


@pytest.mark.parametrize(("look", "language"), [({}, "zh"), (ENGLISH, "en")])
async def test_the_language_is_the_browsers_until_another_is_chosen_and_that_is_kept(
    stage: Stage, look: dict[str, Any], language: str
) -> None:
    other = "en" if language == "zh" else "zh"
    titles = {"zh": "对话", "en": "Chat"}
    page = await stage.open(**look)
    stage.chat.turn("问", "好。\n", "想。\n")
    await expect(page.page.locator("html")).to_have_attribute("lang", language)
    await page.page.locator("llm-chat .language").click()
    for _ in range(2):
        await expect(page.page.locator("html")).to_have_attribute("lang", other)
        await expect(page.page.locator("llm-chat")).to_have_attribute("lang", other)
        await expect(page.page).to_have_title(titles[other])
        await expect(page.page.locator("llm-chat .title")).to_have_text(titles[other])
        await expect(page.reasoning.locator("summary")).to_have_text(
            "Thought · 1 s" if other == "en" else "已思考 · 1 秒"
        )
        await page.page.reload()


@pytest.mark.parametrize(("look", "theme"), [({}, "light"), (DARK, "dark")])
async def test_the_theme_is_the_systems_until_another_is_chosen_and_that_is_kept(
    stage: Stage, look: dict[str, Any], theme: str
) -> None:
    papers = {"light": "rgb(252, 252, 251)", "dark": "rgb(17, 23, 24)"}
    other = "dark" if theme == "light" else "light"
    page = await stage.open(**look)
    chat = page.page.locator("llm-chat")
    await expect(chat).to_have_css("background-color", papers[theme])
    await page.page.locator("llm-chat .theme").click()
    for element in (chat, page.page.locator("html")):
        await expect(element).to_have_css("background-color", papers[other])
    await page.page.reload()
    await page.connected()
    await expect(chat).to_have_css("background-color", papers[other])


async def test_without_motion_the_caret_stands_still(stage: Stage) -> None:
    caret = "e => getComputedStyle(e.lastElementChild, '::after').animationName"
    for motion, animation in (("reduce", "none"), ("no-preference", "breathe")):
        page = await stage.open(reduced_motion=motion)
        stage.chat.ask("问")
        stage.chat.state("answering")
        stage.chat.say("left", "<p>写</p>")
        await page.in_state("answering")
        assert await page.answer.evaluate(caret) == animation


async def fill(stage: Stage, page: ChatPage) -> None:
    """Show a conversation that is longer than the window, with an answer in progress."""
    stage.chat.turn("长", samples.LONG_CHINESE)
    stage.chat.ask("再长")
    stage.chat.state("answering")
    stage.chat.write("left", samples.LONG_CHINESE)
    await page.in_state("answering")
    await expect(page.turns).to_have_count(2)


async def more(stage: Stage, page: ChatPage, count: int) -> None:
    """Show another piece of the answer."""
    stage.chat.say("left", *("<p>又来一段。\n</p>",) * 4)
    await expect(page.answer.locator("p")).to_have_count(count)


@pytest.mark.parametrize("look", ["desktop", "phone"])
async def test_the_page_follows_the_end_until_the_reader_scrolls_away_and_back(
    stage: Stage, look: str
) -> None:
    page = await stage.open(**LOOKS[look])
    await fill(stage, page)
    await more(stage, page, 12)
    await page.at_end()
    await page.scroller.evaluate("e => e.scrollBy(0, -300)")
    await expect(page.to_end).to_be_visible()
    before = await page.scroller.evaluate("e => e.scrollTop")
    await more(stage, page, 16)
    assert await page.scroller.evaluate("e => e.scrollTop") == before
    await page.to_end.click()
    await expect(page.to_end).to_be_hidden()
    await page.at_end()
    await more(stage, page, 20)
    await page.at_end()


async def test_scrolling_stops_following_the_end_and_a_new_question_resumes_it(stage: Stage) -> None:
    page = await stage.open()
    await fill(stage, page)
    await page.scroller.hover()
    await page.page.mouse.wheel(0, -200)
    await expect(page.to_end).to_be_visible()
    await page.page.mouse.wheel(0, 4000)
    await expect(page.to_end).to_be_hidden()
    await page.scroller.focus()
    await page.page.keyboard.press("PageUp")
    await expect(page.to_end).to_be_visible()
    stage.chat.state("done", seconds=1)
    await page.in_state("idle")
    await page.ask("新的问题")
    await expect(page.questions).to_have_count(3)
    await expect(page.to_end).to_be_hidden()
    await page.at_end()


async def test_reasoning_does_not_fold_while_the_reader_is_above_it(stage: Stage) -> None:
    page = await stage.open()
    stage.chat.turn("长", samples.LONG_CHINESE)
    stage.chat.ask("再长")
    stage.chat.state("thinking")
    stage.chat.write("describe", samples.LONG_CHINESE)
    await page.in_state("thinking")
    await page.scroller.evaluate("e => e.scrollBy(0, -300)")
    await expect(page.to_end).to_be_visible()
    stage.chat.state("answering")
    await page.in_state("answering")
    await expect(page.reasoning).to_have_attribute("open", "")


async def test_an_on_screen_keyboard_does_not_hide_the_input(stage: Stage) -> None:
    page = await stage.open(**PHONE)
    fake = """() => {
        Object.defineProperty(window.visualViewport, "height", { get: () => 480 });
        window.visualViewport.dispatchEvent(new Event("resize"));
    }"""
    await page.page.evaluate(fake)
    box = await page.input.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 480
