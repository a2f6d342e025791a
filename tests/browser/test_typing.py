"""The input: when Enter sends, with and without an input method, and how it grows."""

import asyncio

import pytest
from playwright.async_api import Route, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Stage
from tests.browser.test_screens import PHONE

ENTER = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
TAKEN_ENTER = {"type": "rawKeyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
EVENTS_OF_SAFARI = """
    (textarea, keyCode) => {
        textarea.dispatchEvent(new CompositionEvent("compositionstart", { bubbles: true }));
        textarea.value = "你好";
        textarea.dispatchEvent(new InputEvent("input", { bubbles: true }));
        textarea.dispatchEvent(new CompositionEvent("compositionend", { bubbles: true, data: "你好" }));
        const enter = { key: "Enter", code: "Enter", keyCode, bubbles: true, cancelable: true };
        textarea.dispatchEvent(new KeyboardEvent("keydown", enter));
    }
"""


async def nothing_was_sent(page: ChatPage, stage: Stage) -> bool:
    """A question sent by another way is the first to arrive."""
    await page.input.fill("之后")
    await page.input.press("Enter")
    await expect(page.questions).to_have_text(["之后"])
    return stage.chat.prompts == ["之后"]


async def test_enter_that_ends_a_composition_does_not_send_and_the_next_one_sends_once(stage: Stage) -> None:
    page = await stage.open()
    await page.input.focus()
    keyboard = await page.keyboard()
    await keyboard.send("Input.imeSetComposition", {"text": "nihao", "selectionStart": 5, "selectionEnd": 5})
    await keyboard.send("Input.dispatchKeyEvent", TAKEN_ENTER)
    await keyboard.send("Input.dispatchKeyEvent", {"type": "keyUp", **ENTER})
    await expect(page.input).to_have_value("nihao")
    assert stage.chat.prompts == []
    await keyboard.send("Input.insertText", {"text": "你好"})
    await expect(page.input).to_have_value("你好")
    await page.page.evaluate("new Promise((resolve) => setTimeout(resolve, 20))")  # no finger is faster
    await keyboard.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **ENTER})
    await keyboard.send("Input.dispatchKeyEvent", {"type": "keyUp", **ENTER})
    await expect(page.questions).to_have_text(["你好"])
    assert stage.chat.prompts == ["你好"]


@pytest.mark.parametrize("key_code", [229, 13])
async def test_enter_that_follows_the_end_of_its_composition_does_not_send(
    stage: Stage, key_code: int
) -> None:
    page = await stage.open()
    await page.input.evaluate(EVENTS_OF_SAFARI, key_code)
    assert await nothing_was_sent(page, stage)


async def test_a_composition_that_lost_its_focus_is_over(stage: Stage) -> None:
    page = await stage.open()
    start = "e => e.dispatchEvent(new CompositionEvent('compositionstart', { bubbles: true }))"
    await page.input.focus()
    await page.input.evaluate(start)
    await page.scroller.focus()
    await page.ask("你好")
    await expect(page.questions).to_have_text(["你好"])


async def test_shift_enter_is_a_new_line_and_blanks_are_not_sent(stage: Stage) -> None:
    page = await stage.open()
    await expect(page.button).to_have_attribute("aria-disabled", "true")
    await page.ask("  \n ")
    await page.input.fill("一")
    await page.input.press("Shift+Enter")
    await page.input.press_sequentially("二")
    await expect(page.input).to_have_value("一\n二")
    await page.input.press("Enter")
    await expect(page.questions).to_have_count(1)
    assert stage.chat.prompts == ["一\n二"]
    assert await page.questions.inner_text() == "一\n二"


async def test_enter_neither_sends_nor_stops_while_an_answer_runs(stage: Stage) -> None:
    page = await stage.open()
    await page.ask("一")
    await page.in_state("waiting")
    await page.ask("二")
    await expect(page.input).to_have_value("二")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>好。\n</p>")
    stage.chat.state("done", seconds=1)
    await page.in_state("idle")
    assert stage.chat.posts == ["dialogue"]
    await page.input.press("Enter")
    await expect(page.questions).to_have_text(["一", "二"])


async def test_text_typed_while_a_question_is_being_sent_stays(stage: Stage) -> None:
    page, written = await stage.open(), asyncio.Event()

    async def answer_late(route: Route) -> None:
        response = await route.fetch()
        await written.wait()
        await route.fulfill(response=response)

    await page.page.route("**/chat/dialogue*", answer_late)
    await page.ask("一")
    await page.in_state("waiting")
    await page.input.fill("二")
    written.set()
    stage.chat.state("done", seconds=1)
    await page.in_state("idle")
    await expect(page.button).to_have_attribute("aria-disabled", "false")
    await expect(page.input).to_have_value("二")


async def test_on_a_phone_enter_is_a_new_line_and_the_button_sends(stage: Stage) -> None:
    page = await stage.open(**PHONE)
    await page.input.tap()
    await page.input.press_sequentially("一")
    await page.input.press("Enter")
    await page.input.press_sequentially("二")
    await expect(page.input).to_have_value("一\n二")
    assert stage.chat.prompts == []
    await page.button.tap()
    await expect(page.questions).to_have_count(1)
    assert stage.chat.prompts == ["一\n二"]


async def test_the_input_grows_to_six_lines_and_scrolls_from_there(stage: Stage) -> None:
    page = await stage.open()

    async def height(lines: int) -> float:
        await page.input.fill("\n".join("行" for _ in range(lines)))
        box = await page.input.bounding_box()
        assert box is not None
        return box["height"]

    one = await height(1)
    assert await height(3) == 3 * one
    assert await height(6) == 6 * one
    assert await page.input.evaluate("e => getComputedStyle(e).overflowY") == "hidden"
    assert await height(9) == 6 * one
    assert await page.input.evaluate("e => getComputedStyle(e).overflowY") == "auto"
    await page.input.fill("")
    assert await height(1) == one
