"""The page with the real service: `python -m proxy serve` as shipped, with the demonstration gateway."""

import io
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image
from playwright.async_api import Browser, FloatRect, Locator, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Stage
from tests.browser.scripted_chat import ScriptedChat
from tests.browser.test_screens import DARK
from tests.browser.watch import Watch
from tests.cli.processes import read_until, running
from tests.held_gateway import ANSWER, END, HeldGateway
from tests.loopback import serve_on_loopback

SERVE = (sys.executable, "-m", "proxy", "serve", "--config", "config/proxy.toml", "--bind", "127.0.0.1:0")
HOST = """<!doctype html><html lang="zh"><head><meta charset="utf-8"><title>苏的博客</title></head>
<body><h1>文章</h1>
<button id="ask-ai" data-llm-chat data-channel="{channel}">AI 助手</button>
<script type="module" src="{service}/chat/drawer.js"></script></body></html>"""

COMPOSING = """(node) => {
    for (const key of ["Escape", "Enter"]) {
        for (const taken of [{ isComposing: true }, { keyCode: 229 }]) { // Safari tells only the second
            const press = { key, ...taken, bubbles: true, composed: true, cancelable: true };
            node.dispatchEvent(new KeyboardEvent("keydown", press));
        }
    }
}"""
"""Keys that an input method took for itself."""


@dataclass(frozen=True)
class Neighbour:
    """Another origin of the same site, whose pages may use the chat."""

    url: str
    pages: dict[str, tuple[str, str | None]]


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def neighbour() -> AsyncIterator[Neighbour]:
    """Pages on another port."""
    site = ScriptedChat()
    async with serve_on_loopback(site.app) as url:
        yield Neighbour(url, site.pages)


@asynccontextmanager
async def serving(neighbour: Neighbour, **more: str) -> AsyncIterator[str]:
    """Run a service with some more settings, and yield its address."""
    settings = {
        "PROXY__CHAT__RATE": "20/second",
        "PROXY__CHAT__MODELS": json.dumps(["x1", "gpt-4o"]),
        "PROXY__CHAT__TITLE": "博客助手",
        "PROXY__CHAT__ORIGINS": json.dumps([neighbour.url]),
    }
    async with running(*SERVE, **settings, **more) as process:
        printed = await read_until(process, r"chat +http\S+/chat/")
        found = re.search(r"chat +(http\S+)/chat/", printed)
        assert found is not None
        yield found[1]


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def service(neighbour: Neighbour) -> AsyncIterator[str]:
    """A service for all tests that read whole answers; every visitor has a new session."""
    async with serving(neighbour, PROXY__GATEWAY__WORD_DELAY="0.002") as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def gateway() -> HeldGateway:
    """A gateway for all tests that look at an answer in progress."""
    return HeldGateway()


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def held_service(neighbour: Neighbour, gateway: HeldGateway) -> AsyncIterator[str]:
    """A service in front of that gateway."""
    async with serve_on_loopback(gateway) as upstream:
        settings = {
            "PROXY__UPSTREAMS__CHAT__BASE_URL": f"{upstream}/v1",
            "PROXY__CREDENTIALS__CORP__URL": f"{upstream}/token",
        }
        async with serving(neighbour, **settings) as url:
            yield url


@asynccontextmanager
async def visited(service: str, browser: Browser, neighbour: Neighbour) -> AsyncIterator[Stage]:
    """Yield the visitors of a service, and close their pages at the end."""
    stage = Stage(ScriptedChat(), service, browser, Watch(service, neighbour.url), [])
    try:
        yield stage
    finally:
        for context in stage.contexts:
            await context.close()
    assert stage.watch.complaints == []


@pytest_asyncio.fixture(loop_scope="session")
async def real(service: str, browser: Browser, neighbour: Neighbour) -> AsyncIterator[Stage]:
    """Visitors of the real service."""
    async with visited(service, browser, neighbour) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="session")
async def held(held_service: str, browser: Browser, neighbour: Neighbour) -> AsyncIterator[Stage]:
    """Visitors of the service whose answers a test can hold."""
    async with visited(held_service, browser, neighbour) as stage:
        yield stage


async def test_a_chinese_question_gets_reasoning_and_an_answer_in_pieces(
    held: Stage, gateway: HeldGateway
) -> None:
    page = await held.open()
    with gateway.holding(ANSWER, END):
        await page.ask("海内存知己，天涯若比邻，出自哪里？")
        await expect(page.questions).to_have_text(["海内存知己，天涯若比邻，出自哪里？"])
        await page.in_state("thinking")
        await expect(page.reasoning).to_have_attribute("open", "")
        await expect(page.reasoning.locator("p").first).to_be_visible()
        await expect(page.answer).to_have_count(0)
        gateway.release(ANSWER)
        await page.in_state("answering")
        await expect(page.reasoning).not_to_have_attribute("open", "")
        await expect(page.answer.locator("blockquote")).to_contain_text("海内存知己")
        assert await page.frame.get_attribute("data-state") == "answering", "the end has not come yet"
        await page.shot("real-1-answering")
    await page.in_state("idle")
    await expect(page.answer.locator("table tr")).to_have_count(3)
    await expect(page.answer.locator("figure.code .language")).to_have_text("python")
    await expect(page.answer.locator("ol > li")).to_have_count(3)
    await page.shot("real-2-done")
    assert await page.faults() == []


async def test_a_reload_in_mid_answer_ends_in_what_another_tab_saw(held: Stage, gateway: HeldGateway) -> None:
    page = await held.open()
    other = await ChatPage.open(page.page.context, held.url + "/chat/", held.watch)
    with gateway.holding(END):
        await page.ask("你好")
        await page.in_state("answering")
        await page.page.reload()
        await page.in_state("answering")
    for tab in (page, other):
        await expect(tab.turns.locator(".took")).to_have_count(1)
    assert await page.answer.inner_text() == await other.answer.inner_text()
    assert await page.answer.inner_text() != ""
    await expect(page.questions).to_have_text(["你好"])


async def test_stop_then_again_then_a_new_chat(held: Stage, gateway: HeldGateway) -> None:
    page = await held.open(locale="en-GB")
    with gateway.holding(END):
        await page.ask("Hello")
        await page.in_state("answering")
        await page.button.click()
        await page.in_state("idle")
        await expect(page.turns.locator(".ending")).to_contain_text("Stopped")
        await page.page.locator("llm-chat .retry").click()
        await page.in_state("answering")
    await page.in_state("idle")
    await expect(page.turns.locator(".took")).to_have_count(1)
    await expect(page.questions).to_have_text(["Hello"])
    await page.page.locator("llm-chat .fresh").click()
    await expect(page.empty).to_be_visible()
    await page.page.reload()
    await expect(page.empty).to_be_visible()
    await expect(page.turns).to_have_count(0)


async def test_rejections_are_shown_in_the_visitors_language(real: Stage) -> None:
    page = await real.open()
    await page.input.fill("长" * 9000)
    await page.input.press("Enter")
    await expect(page.refusal).to_have_text("问题太长，最多 8000 个字。")
    assert await page.input.input_value() == "长" * 9000


async def test_one_visitor_sees_nothing_of_another(real: Stage) -> None:
    one, other = await real.open(), await real.open()
    await one.ask("这是一个秘密")
    await one.answered(1)
    await other.ask("你好")
    await other.answered(1)
    await expect(other.page.locator("llm-chat .log")).not_to_contain_text("秘密")


async def test_the_drawer_on_a_page_that_sets_its_channel(real: Stage) -> None:
    channel = f"5a0b0b0a-1111-4c0f-9a5e-{time.time_ns() % 10**12:012d}"
    page = await (await real.context()).new_page()
    real.watch.over(page)
    await page.route(
        "**/post",
        lambda route: route.fulfill(body=HOST.format(channel=channel, service=""), content_type="text/html"),
    )
    await page.goto(real.url + "/post")
    await page.locator("#ask-ai").click()
    chat = ChatPage(page)
    await chat.connected()
    await chat.ask("你好")
    await expect(chat.answer.locator("blockquote")).to_contain_text("你好")


async def test_the_drawer_on_a_page_of_another_origin_that_may_use_it(
    held: Stage, gateway: HeldGateway, neighbour: Neighbour
) -> None:
    neighbour.pages["post"] = (HOST.format(channel="", service=held.url), None)
    page = await (await held.context()).new_page()
    held.watch.over(page)
    await page.goto(neighbour.url + "/site/post")
    await page.locator("#ask-ai").click()
    chat = ChatPage(page)
    await chat.connected()
    with gateway.holding(END):
        await chat.ask("你好")
        await chat.in_state("answering")
        await expect(chat.answer.locator("blockquote")).to_contain_text("你好")
        await chat.button.click()
        await chat.in_state("idle")


async def converse(page: ChatPage, *questions: str) -> None:
    """Ask each question in a new conversation, and wait for the answers."""
    for number, question in enumerate(questions):
        if number:
            await page.page.locator("llm-chat .fresh").click()
            await expect(page.turns).to_have_count(0)
        await page.ask(question)
        await page.answered(1)


async def open_list(page: ChatPage) -> Locator:
    """Open the list of conversations, and return the titles."""
    await page.page.locator("llm-chat .conversations-toggle").click()
    return page.page.locator("llm-chat .list span.name")


async def test_conversations_are_listed_opened_again_searched_and_renamed(real: Stage) -> None:
    page = await real.open()
    await converse(page, "第一个问题", "第二个问题")
    titles = await open_list(page)
    await expect(titles).to_have_text(["第二个问题", "第一个问题"])
    await page.shot("conversations-desktop")
    assert await page.faults() == []
    await titles.nth(1).click()
    await expect(page.questions).to_have_text(["第一个问题"])
    await expect(page.answer).to_contain_text("第一个问题")
    search = page.page.locator("llm-chat .search")
    await search.fill("二个")
    await expect(titles).to_have_text(["第二个问题"])
    await search.fill("演示模型")  # in both answers
    await expect(titles).to_have_text(["第二个问题", "第一个问题"])
    await search.fill("没有这个")
    await expect(page.page.locator("llm-chat .nothing")).to_have_text("没有找到")
    await search.fill("")
    button = page.page.locator("llm-chat .list .open").first
    before = await button.bounding_box()
    await titles.nth(0).hover()
    assert await button.bounding_box() == before, "the tools do not push the title aside"
    await page.page.locator("llm-chat .list li").nth(0).get_by_label("改标题").click()
    title = page.page.locator("llm-chat .list input.name")
    await title.fill("新的标题")
    await title.press("Enter")
    await expect(titles).to_have_text(["新的标题", "第一个问题"])
    await page.page.reload()
    await page.connected()
    await expect(page.questions).to_have_text(["第一个问题"])
    await expect(titles).to_have_text(["新的标题", "第一个问题"])


async def test_keys_of_an_input_method_neither_rename_nor_close(real: Stage) -> None:
    page = await real.open()
    await converse(page, "第一个问题")
    titles = await open_list(page)
    await page.page.locator("llm-chat .search").evaluate(COMPOSING)
    await expect(titles).to_have_text(["第一个问题"])
    await page.page.locator("llm-chat .list li").get_by_label("改标题").click()
    title = page.page.locator("llm-chat .list input.name")
    await title.fill("新的")
    await title.evaluate(COMPOSING)
    await title.press("Enter")
    await expect(titles).to_have_text(["新的"])
    await page.turns.hover()
    await page.turns.get_by_role("button", name="编辑").click()
    editor = page.page.locator("llm-chat .editor textarea")
    await editor.evaluate(COMPOSING)
    await expect(editor).to_be_focused()
    await editor.press("Escape")
    await expect(editor).to_have_count(0)


@pytest.mark.parametrize("look", [{}, DARK], ids=["light", "dark"])
async def test_the_cross_that_clears_the_search_has_no_colour_of_its_own(
    real: Stage, look: dict[str, Any]
) -> None:
    page = await real.open(**look)
    await converse(page, "第一个问题")
    await open_list(page)
    search = page.page.locator("llm-chat .search")
    await search.fill("问题")
    box = await search.bounding_box()
    assert box is not None
    clip: FloatRect = {"x": box["x"] + box["width"] - 36, "y": box["y"] + 4, "width": 32, "height": 32}
    drawn = Image.open(io.BytesIO(await page.page.screenshot(clip=clip))).convert("RGB")
    await page.shot(f"conversations-search-{'dark' if look else 'light'}")
    colours = [*zip(*(band.tobytes() for band in drawn.split()), strict=True)]
    brightness = [sum(colour) / 3 for colour in colours]
    assert max(brightness) - min(brightness) > 100, "the cross is visible"
    assert max(max(colour) - min(colour) for colour in colours) < 40
    assert await page.faults() == []


async def test_a_deleted_conversation_can_be_brought_back_and_is_gone_later(real: Stage) -> None:
    page = await real.open()
    await converse(page, "留下的", "要删的")
    titles = await open_list(page)
    await expect(titles).to_have_count(2)
    rows = page.page.locator("llm-chat .list li")
    undo = page.page.locator("llm-chat .undo button")
    await page.stop_clock()
    await rows.nth(0).hover()
    await rows.nth(0).get_by_label("删除").click()
    await expect(titles).to_have_text(["留下的"])
    await expect(page.turns).to_have_count(0)
    await expect(undo).to_be_focused()
    await page.shot("conversations-deleted")
    await undo.click()
    await expect(titles).to_have_text(["要删的", "留下的"])
    await expect(page.questions).to_have_text(["要删的"])
    await rows.nth(0).hover()
    await rows.nth(0).get_by_label("删除").click()
    async with page.page.expect_response("**/chat/reset?**") as replied:
        await page.page.clock.run_for(7000)
    assert (await replied.value).ok
    other = await ChatPage.open(page.page.context, real.url + "/chat/", real.watch)
    await expect(other.page.locator("llm-chat .list span.name")).to_have_text(["留下的"])


async def test_closing_the_page_right_after_a_deletion_deletes(real: Stage) -> None:
    page = await real.open()
    await converse(page, "留下的", "要删的")
    await open_list(page)
    row = page.page.locator("llm-chat .list li").nth(0)
    await row.hover()
    await row.get_by_label("删除").click()
    await page.page.reload()
    await page.connected()
    await expect(page.page.locator("llm-chat .list span.name")).to_have_text(["留下的"])


async def test_a_reloaded_tab_shows_its_own_conversation_and_a_new_tab_the_latest(real: Stage) -> None:
    first = await real.open()
    await converse(first, "第一页的")
    second = await ChatPage.open(first.page.context, real.url + "/chat/", real.watch)
    await expect(second.questions).to_have_text(["第一页的"])
    await second.page.locator("llm-chat").get_by_label("新对话").click()
    await second.ask("第二页的")
    await second.answered(1)
    for page, question in ((first, "第一页的"), (second, "第二页的")):
        await page.page.reload()
        await expect(page.questions).to_have_text([question])
    third = await ChatPage.open(first.page.context, real.url + "/chat/", real.watch)
    await expect(third.questions).to_have_text(["第二页的"])


async def test_a_tab_goes_on_in_a_conversation_that_another_tab_has_deleted(real: Stage) -> None:
    deleting = await real.open()
    await converse(deleting, "要删的")
    asking = await ChatPage.open(deleting.page.context, real.url + "/chat/", real.watch)
    await expect(asking.questions).to_have_text(["要删的"])
    await open_list(deleting)
    row = deleting.page.locator("llm-chat .list li")
    await row.hover()
    await row.get_by_label("删除").click()
    await deleting.page.close(run_before_unload=False)
    await expect(asking.turns).to_have_count(0)
    await asking.ask("接着问的")
    await asking.answered(1)
    await asking.page.reload()
    await expect(asking.questions).to_have_text(["接着问的"])
    await expect(await open_list(asking)).to_have_text(["接着问的"])


async def test_an_answer_continues_while_another_conversation_is_shown(
    held: Stage, gateway: HeldGateway
) -> None:
    page = await held.open()
    with gateway.holding(END):
        await page.ask("长的问题")
        await page.in_state("answering")
        await page.page.locator("llm-chat .fresh").click()
        await expect(page.empty).to_be_visible()
        await page.ask("短的问题")
        await expect(page.questions).to_have_text(["短的问题"])
        titles = await open_list(page)
        await titles.nth(1).click()
        await expect(page.questions).to_have_text(["长的问题"])
        await page.in_state("answering")
    await expect(page.turns.locator(".took")).to_have_count(1)
    await expect(page.failure).to_have_count(0)


async def test_a_conversation_is_exported_as_markdown(real: Stage) -> None:
    page = await real.open()
    await converse(page, "海内存知己：出自哪里？")
    await open_list(page)
    async with page.page.expect_download() as started:
        await page.page.locator("llm-chat .save").click()
    download = await started.value
    assert download.suggested_filename == "海内存知己：出自哪里？.md"
    text = (await download.path()).read_text()
    assert text.startswith("## 你的问题\n\n海内存知己：出自哪里？\n\n## 回答\n\n")
    assert "```python\n" in text


@pytest.mark.parametrize(("name", "width"), [("phone", 390), ("tablet", 800)])
async def test_on_a_narrow_page_the_list_covers_the_chat_and_closes(
    real: Stage, name: str, width: int
) -> None:
    page = await real.open(viewport={"width": width, "height": 780})
    await converse(page, "第一个问题", "第二个问题，它要长得多，一行里放不下，所以看不到结尾的部分")
    titles = await open_list(page)
    await expect(titles).to_have_count(2)
    await page.shot(f"conversations-{name}")
    assert await page.faults() == []
    await page.page.keyboard.press("Escape")
    await expect(titles.first).to_be_hidden()
    await expect(page.page.locator("llm-chat .conversations-toggle")).to_be_focused()
    await open_list(page)
    await titles.nth(1).click()
    await expect(titles.first).to_be_hidden()
    await expect(page.questions).to_have_text(["第一个问题"])


async def test_the_drawer_has_the_list_as_well_and_escape_closes_it_first(real: Stage) -> None:
    page = await (await real.context()).new_page()
    real.watch.over(page)
    await page.route(
        "**/post",
        lambda route: route.fulfill(body=HOST.format(channel="", service=""), content_type="text/html"),
    )
    await page.goto(real.url + "/post")
    await page.locator("#ask-ai").click()
    chat = ChatPage(page)
    await chat.connected()
    await converse(chat, "第一个问题", "第二个问题")
    titles = await open_list(chat)
    await expect(titles).to_have_count(2)
    await chat.shot("conversations-drawer")
    await page.keyboard.press("Escape")
    await expect(titles.first).to_be_hidden()
    await expect(chat.frame).to_be_visible()


async def test_an_edited_question_is_asked_in_a_new_conversation(real: Stage) -> None:
    page = await real.open()
    await converse(page, "第一个问题")
    for number, question in enumerate(("第二个问题", "第三个问题"), 2):
        await page.ask(question)
        await page.answered(number)
    await page.turns.nth(1).hover()
    await page.turns.nth(1).get_by_role("button", name="编辑").click()
    editor = page.page.locator("llm-chat .editor textarea")
    await expect(editor).to_be_focused()
    await expect(editor).to_have_value("第二个问题")
    await page.shot("edit-1-editing")
    assert await page.faults() == []
    await editor.press("Escape")
    await expect(editor).to_have_count(0)
    await expect(page.turns.nth(1).get_by_role("button", name="编辑")).to_be_focused()
    await page.turns.nth(1).get_by_role("button", name="编辑").click()
    await editor.fill("改过的问题")
    await page.page.locator("llm-chat .editor").get_by_role("button", name="另问一次").click()
    await expect(page.questions).to_have_text(["第一个问题", "改过的问题"])
    await page.answered(2)
    await expect(page.answer).to_contain_text("改过的问题")
    await expect(page.answer).to_contain_text("3 条消息")
    await page.shot("edit-2-edited")
    titles = await open_list(page)
    await expect(titles).to_have_text(["第一个问题", "第一个问题"])
    await page.page.locator("llm-chat .origin button").click()
    await expect(page.questions).to_have_text(["第一个问题", "第二个问题", "第三个问题"])


async def test_question_and_answer_are_copied_together_as_markdown(real: Stage) -> None:
    page = await real.open(permissions=["clipboard-read", "clipboard-write"])
    await converse(page, "第一个问题")
    copy = page.page.locator("llm-chat .ending button", has_text="复制问答")
    await page.stop_clock()
    await copy.click()
    await expect(page.page.locator("llm-chat .ending")).to_contain_text("已复制")
    text = await page.page.evaluate("navigator.clipboard.readText()")
    assert text.startswith("## 你的问题\n\n第一个问题\n\n## 回答\n\n")
    await page.turns.hover()
    await page.turns.locator(".asked").get_by_role("button", name="复制").click()
    assert await page.page.evaluate("navigator.clipboard.readText()") == "第一个问题"


async def test_a_chosen_model_answers_is_named_and_stays_chosen(real: Stage) -> None:
    page = await real.open()
    await expect(page.page).to_have_title("博客助手")
    await expect(page.page.locator("llm-chat h1")).to_have_text("博客助手")
    model = page.page.locator("llm-chat select.model")
    await expect(model.locator("option")).to_have_text(["x1", "gpt-4o"])
    await converse(page, "第一个问题")
    await expect(page.turns.locator(".ending")).to_contain_text("x1")
    await model.select_option("gpt-4o")
    await page.page.locator("llm-chat .retry").click()
    await expect(page.turns.locator(".ending")).to_contain_text("gpt-4o")
    await page.page.reload()
    await page.connected()
    await expect(model).to_have_value("gpt-4o")
    await expect(page.page).to_have_title("博客助手")


async def test_the_button_to_the_end_covers_no_text(real: Stage) -> None:
    page = await real.open(viewport={"width": 390, "height": 600})
    await converse(page, "第一个问题")
    before = await page.scroller.bounding_box()
    await page.scroller.evaluate("e => e.scrollTo(0, 0)")
    await page.scroller.hover()
    await page.page.mouse.wheel(0, -500)
    await expect(page.to_end).to_be_visible()
    after, pill = await page.scroller.bounding_box(), await page.to_end.bounding_box()
    assert before is not None
    assert after == before
    assert pill is not None
    assert pill["y"] >= before["y"] + before["height"]
    await page.shot("way-to-the-end")
    await page.to_end.click()
    await page.at_end()
    await expect(page.to_end).to_be_hidden()
