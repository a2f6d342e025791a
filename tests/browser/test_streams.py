"""The event stream of the page: a break loses and duplicates nothing, and visitors see only their channel."""

import asyncio

from playwright.async_api import expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Stage
from tests.browser.scripted_chat import BEGINNING, Resumed
from tests.loopback import until
from tests.pace import PATIENCE
from tests.waiting import look_again

SEEN = """(state) => {
    Object.defineProperty(document, "visibilityState", { configurable: true, get: () => state });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
NOTE_TIMERS = """() => {
    const original = window.setTimeout;
    window.started = new Set();
    window.setTimeout = (run, ms, ...given) => {
        window.started.add(ms);
        return original(run, ms, ...given);
    };
}"""


async def test_a_reload_in_mid_answer_loses_and_doubles_nothing(stage: Stage) -> None:
    page = await stage.open()
    await page.ask("数到三")
    await page.in_state("waiting")
    stage.chat.state("thinking")
    stage.chat.say("describe", "<p>想。\n</p>")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>一。</p>")
    await expect(page.answer).to_have_text("一。")
    await page.page.reload()
    await page.in_state("answering")
    stage.chat.say("left", "<p>二。</p>")
    await expect(page.answer).to_have_text("一。二。")
    stage.chat.say("left", "<p>三。\n</p>")
    stage.chat.state("done", seconds=1)
    await page.in_state("idle")
    await expect(page.answer.locator("p")).to_have_text(["一。二。三。"])
    await expect(page.questions).to_have_text(["数到三"])
    await expect(page.page.locator("llm-chat details")).to_have_count(1)
    await expect(page.empty).to_be_hidden()


async def test_two_tabs_show_the_same_and_either_can_stop(stage: Stage) -> None:
    first = await stage.open()
    second = await ChatPage.open(first.page.context, stage.url + "/chat/", stage.watch)
    await first.ask("你好")
    await first.in_state("waiting")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>你也好。</p>")
    for page in (first, second):
        await expect(page.questions).to_have_text(["你好"])
        await expect(page.answer).to_have_text("你也好。")
    await second.button.click()
    for page in (first, second):
        await page.in_state("idle")
        await expect(page.turns.locator(".ending")).to_contain_text("已停止")


async def test_the_browser_resumes_a_cut_stream_from_the_last_id(stage: Stage) -> None:
    page = await stage.open()
    await page.ask("数")
    await page.in_state("waiting")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>一。</p>")
    await expect(page.answer).to_have_text("一。")
    stage.chat.drop()
    await until(lambda: stage.chat.readers == 0)
    stage.chat.say("left", "<p>二。</p>")
    stage.chat.state("done", seconds=1)
    await expect(page.answer).to_have_text("一。二。")
    await page.in_state("idle")
    assert stage.chat.resumed[0] == Resumed(None, BEGINNING)
    assert len(stage.chat.resumed) == 2
    assert stage.chat.resumed[1].header == stage.chat.ids[3]  # question, waiting, answering, first words


async def test_an_unavailable_service_is_retried_from_the_last_id(stage: Stage) -> None:
    page = await stage.open()
    stage.chat.turn("一", "回答。\n")
    await page.in_state("idle")
    await expect(page.answer).to_have_text("回答。")
    stage.chat.down = True
    stage.chat.drop()
    await expect(page.frame).to_have_attribute("data-link", "lost")
    await expect(page.link_notice).to_have_text("连接断了，正在重新连接…")
    stage.chat.down = False
    stage.chat.say("left", "<p>补上的话。\n</p>")
    await page.connected()
    await expect(page.answer.locator("p")).to_have_text(["回答。", "补上的话。"])
    await expect(page.link_notice).to_be_empty()
    await expect(page.page.locator("llm-chat .status")).to_have_text("已重新连接")
    opened = stage.chat.resumed[-1]
    assert opened.header is None
    assert opened.parameter is not None


async def test_a_conversation_that_the_service_forgot_stays_on_the_page_and_continues(stage: Stage) -> None:
    page = await stage.open()
    stage.chat.turn("一", "回答。\n")
    await expect(page.answer).to_have_text("回答。")
    await page.stop_clock()  # the page does not open the stream anew
    stage.chat.ends_for_good = True
    stage.chat.drop()
    await expect(page.frame).to_have_attribute("data-link", "lost")
    await page.page.clock.resume()
    await page.connected()
    assert stage.chat.resumed[-1].parameter == BEGINNING
    await expect(page.answer).to_have_text("回答。")
    await page.ask("二")
    await expect(page.questions).to_have_text(["一", "二"])


async def test_a_network_failure_is_shown_and_nothing_is_lost_when_it_ends(stage: Stage) -> None:
    page = await stage.open()
    await page.ask("数")
    await page.in_state("waiting")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>一。</p>")
    await expect(page.answer).to_have_text("一。")
    await page.page.context.set_offline(True)
    stage.chat.drop()
    await expect(page.link_notice).to_contain_text("网络已断开")
    stage.chat.say("left", "<p>二。</p>")
    stage.chat.state("done", seconds=1)
    await page.ask("断网时的问题")
    await expect(page.input).to_have_value("断网时的问题")
    await page.page.context.set_offline(False)
    await expect(page.answer).to_have_text("一。二。")
    await expect(page.link_notice).to_be_empty()
    await page.in_state("idle")
    await page.input.press("Enter")
    await expect(page.questions).to_have_text(["数", "断网时的问题"])


async def test_an_answer_lost_with_the_service_is_marked_as_interrupted(stage: Stage) -> None:
    stage.chat.ask("一")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>说到一半，</p>")
    stage.chat.busy = False
    page = await stage.open()
    await expect(page.failure.locator(".cause")).to_have_text("服务在回答途中断开了。")
    await page.in_state("idle")
    await expect(page.answer).to_have_text("说到一半，")


async def test_a_silent_answer_is_polled_with_growing_pauses_until_it_ends(stage: Stage) -> None:
    page = await stage.open()
    await page.stop_clock()
    await page.page.evaluate(NOTE_TIMERS)
    stage.chat.ask("一")
    await page.in_state("waiting")
    stage.chat.asked = 0
    for asked, pause in enumerate([1200, 2400, 4800, 9600, 15_000, 15_000], 1):
        async with asyncio.timeout(PATIENCE):
            while not await page.page.evaluate("(ms) => window.started.delete(ms)", pause):
                await look_again()
        await page.page.clock.run_for(pause - 200)
        assert stage.chat.asked == asked - 1
        await page.page.clock.run_for(200)
        await until(lambda asked=asked: stage.chat.asked == asked)  # type: ignore[misc]
    assert stage.chat.resumed[-1].parameter == BEGINNING, "the stream is still the first one"
    await page.in_state("waiting")


async def test_the_end_that_a_dead_stream_missed_is_found(stage: Stage) -> None:
    page = await stage.open()
    stage.chat.ask("一")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>一。</p>")
    await expect(page.answer).to_have_text("一。")
    stage.chat.cut_silently()
    stage.chat.say("left", "<p>二。</p>")
    stage.chat.state("done", seconds=1)
    await expect(page.answer).to_have_text("一。二。")
    await page.in_state("idle")
    await expect(page.failure).to_have_count(0)


async def test_a_replaced_session_keeps_the_text_and_continues_in_its_own_channel(stage: Stage) -> None:
    page = await stage.open()
    stage.chat.turn("一", "回答。\n")
    stage.chat.ask("二")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>说到一半，</p>")
    await expect(page.turns).to_have_count(2)
    stage.chat.forget()
    stage.chat.channel = "9c1f5b5e-0b0a-4c0f-9a5e-3d2f6c1b7a11"
    await page.page.context.clear_cookies()
    stage.chat.drop()
    await expect(page.failure.locator(".cause")).to_have_text("服务在回答途中断开了。")
    await page.connected()
    stage.chat.turn("三", "新的回答。\n")
    await expect(page.turns).to_have_count(3)
    await expect(page.turns.nth(0)).to_contain_text("回答。")


async def test_a_hidden_tab_releases_its_connection_and_catches_up(stage: Stage) -> None:
    page = await stage.open()
    await page.page.clock.install()
    await page.page.reload()
    await page.connected()
    await page.page.evaluate(SEEN, "hidden")
    stage.chat.ask("问")
    await page.in_state("waiting")
    await page.page.clock.fast_forward(301_000)
    stage.chat.state("answering")
    stage.chat.say("left", "<p>仍然看得到。\n</p>")
    await expect(page.answer).to_have_text("仍然看得到。")
    stage.chat.state("done", seconds=1)
    await page.in_state("idle")
    await page.page.evaluate(SEEN, "hidden")
    await page.page.clock.fast_forward(301_000)
    await expect(page.frame).to_have_attribute("data-link", "resting")
    await until(lambda: stage.chat.readers == 0)
    stage.chat.turn("又问", "后来说的。\n")
    await page.page.evaluate(SEEN, "visible")
    await expect(page.answer).to_have_text("后来说的。")
    await expect(page.link_notice).to_be_empty()
