"""The drawer on a page of the same site: one script tag is enough on any page."""

import asyncio

import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.browser import samples
from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Stage
from tests.browser.inspection import looks
from tests.browser.test_screens import DARK, PHONE
from tests.loopback import until

TAG = '<script type="module" src="/chat/drawer.js"></script>'
HOST = """<!doctype html><html lang="zh"><head><meta charset="utf-8"><title>苏的博客</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/site/host.css"></head><body>
<main><h1>流式对话的实现</h1><p>{words}</p><p><a href="#top">回到顶部</a></p>{more}</main>{tag}
</body></html>"""
HOST_CSS = """
* { color: crimson; box-sizing: content-box; font-family: serif; line-height: 3; }
button, textarea, dialog { background: gold !important; border: 9px solid red; }
main { max-width: 720px; margin: 40px auto; }
main, main * { color: #222; line-height: 1.8; font-family: sans-serif; }
"""
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'"
)
WORDS = "这两年比较流行 AI Agent，所以自用博客尝试了下接入，今天主要就来记录下实现的方法。" * 12


async def host(
    stage: Stage, *, more: str = "", tag: str = TAG, policy: str | None = None, **look: object
) -> Page:
    """Open a page of the site with the drawer."""
    body = HOST.format(words=WORDS, more=more, tag=tag)
    stage.chat.pages["post"] = (body, policy)
    stage.chat.pages["host.css"] = (HOST_CSS, None)
    page = await (await stage.context(**look)).new_page()
    stage.watch.over(page)
    await page.goto(stage.url + "/site/post")
    await page.locator("llm-chat-drawer dialog").wait_for(state="attached")
    return page


def own_button(page: Page) -> Locator:
    """Return the button that opens the drawer."""
    return page.locator("llm-chat-drawer .opener")


async def opened(page: Page) -> ChatPage:
    """Wait until the drawer is open and connected, and return its chat."""
    chat = ChatPage(page)
    await expect(page.locator("llm-chat-drawer dialog")).to_be_visible()
    await chat.connected()
    await expect(chat.frame).to_be_visible()
    await page.evaluate(
        "Promise.all(document.querySelector('llm-chat-drawer').shadowRoot"
        ".querySelector('dialog').getAnimations().map((animation) => animation.finished)).then(() => 0)"
    )
    return chat


async def test_one_tag_adds_a_button_that_opens_the_chat_even_under_a_strict_policy(stage: Stage) -> None:
    page = await host(stage, policy=STRICT)
    assert stage.chat.readers == 0
    await own_button(page).click()
    chat = await opened(page)
    await expect(chat.input).to_be_focused()
    await chat.ask("你好")
    await expect(chat.questions).to_have_text(["你好"])
    stage.chat.state("answering")
    stage.chat.say("left", "<p>你也好。\n</p>")
    await expect(chat.answer).to_have_text("你也好。")
    await page.keyboard.press("Escape")
    await expect(page.locator("llm-chat-drawer dialog")).to_be_hidden()
    await until(lambda: stage.chat.readers == 0)
    stage.chat.say("left", "<p>关着时说的。\n</p>")
    await own_button(page).click()
    await expect(chat.answer.locator("p")).to_have_text(["你也好。", "关着时说的。"])


async def test_esc_shade_and_button_close_it_and_the_focus_returns_to_where_it_was(stage: Stage) -> None:
    page = await host(stage)
    ways = [
        page.keyboard.press("Escape"),
        page.mouse.click(40, 400),
        page.locator("llm-chat .close").click(),
    ]
    for closing in ways:
        await own_button(page).focus()
        await page.keyboard.press("Enter")
        await opened(page)
        await closing
        await expect(page.locator("llm-chat-drawer dialog")).to_be_hidden()
        await expect(own_button(page)).to_be_focused()
        assert await page.evaluate("document.documentElement.style.overflow") == ""


async def test_an_element_of_the_page_opens_it_and_may_set_the_channel(stage: Stage) -> None:
    stage.chat.channel = "5a0b0b0a-1111-4c0f-9a5e-3d2f6c1b7a12"
    button = f'<button id="ask-ai" data-llm-chat data-channel="{stage.chat.channel}"><b>AI 助手</b></button>'
    page = await host(stage, more=button)
    await page.locator("#ask-ai b").click()
    chat = await opened(page)
    await expect(own_button(page)).to_be_hidden()
    await chat.ask("你好")
    await expect(chat.questions).to_have_text(["你好"])
    await page.keyboard.press("Escape")
    await expect(page.locator("#ask-ai")).to_be_focused()


async def test_a_channel_of_another_visitor_is_explained(stage: Stage) -> None:
    await stage.chat.give_away("somebody-elses")
    button = '<button id="ask-ai" data-llm-chat data-channel="somebody-elses">AI</button>'
    page = await host(stage, more=button)
    await page.locator("#ask-ai").click()
    await expect(ChatPage(page).link_notice).to_contain_text("这个对话属于另一个会话")


async def test_a_click_before_the_styles_arrive_opens_the_drawer_once_they_have(stage: Stage) -> None:
    button = '<button id="ask" data-llm-chat>AI</button>'
    stage.chat.pages["post"] = (HOST.format(words=WORDS, more=button, tag=TAG), None)
    page = await (await stage.context()).new_page()
    stage.watch.over(page)
    arrive = asyncio.Event()

    async def hold(route: Route) -> None:
        await arrive.wait()
        await route.continue_()

    await page.route("**/drawer.css*", hold)
    await page.goto(stage.url + "/site/post")
    await page.locator("llm-chat-drawer").wait_for(state="attached")
    await page.locator("#ask").click()
    assert not await page.evaluate("document.querySelector('llm-chat-drawer').open")

    arrive.set()
    chat = await opened(page)
    await chat.ask("你好")


async def test_two_tags_in_the_head_load_one_drawer(stage: Stage) -> None:
    page = await host(stage, tag=TAG + TAG)
    await own_button(page).click()
    await opened(page)
    assert await page.locator("llm-chat-drawer").count() == 1


async def test_it_is_40_percent_wide_420_pixels_at_least_and_all_of_a_phone(stage: Stage) -> None:
    page = await host(stage)
    await own_button(page).click()
    await opened(page)
    for width, expected in ((1600, 640), (1280, 512), (900, 420), (390, 390)):
        await page.set_viewport_size({"width": width, "height": 844})
        box = await page.locator("llm-chat-drawer dialog").bounding_box()
        assert box == {"x": width - expected, "y": 0, "width": expected, "height": 844}


async def test_it_is_styled_under_a_policy_that_forbids_fetches(stage: Stage) -> None:
    page = await (await stage.context()).new_page()
    stage.chat.pages["bare"] = (
        HOST.format(words="", more="", tag=TAG),
        STRICT.replace("connect-src", "media-src"),
    )
    await page.goto(stage.url + "/site/bare")
    await expect(own_button(page)).to_have_css("background-color", "rgb(10, 84, 85)")


async def test_the_page_behind_cannot_be_reached_and_its_styles_do_not_reach_in(stage: Stage) -> None:
    page = await host(stage)
    await own_button(page).click()
    chat = await opened(page)
    for _ in range(12):
        await page.keyboard.press("Tab")
        inside = await page.evaluate("document.activeElement.localName")
        assert inside in {"llm-chat-drawer", "body"}  # the body stands for the address bar of the browser
    style = "e => ['color', 'backgroundColor', 'borderTopWidth'].map((name) => getComputedStyle(e)[name])"
    assert await chat.button.evaluate(style) == ["rgb(100, 112, 113)", "rgba(0, 0, 0, 0)", "0px"]


async def test_without_motion_it_is_there_at_once_and_with_motion_it_slides_for_180_ms(stage: Stage) -> None:
    animations = (
        "document.querySelector('llm-chat-drawer').shadowRoot.querySelector('dialog')"
        ".getAnimations().map((animation) => animation.effect.getTiming().duration)"
    )
    page = await host(stage, reduced_motion="reduce")
    await page.evaluate("document.querySelector('llm-chat-drawer').show()")
    assert await page.evaluate(animations) == []
    page = await host(stage)
    assert await page.evaluate(f"document.querySelector('llm-chat-drawer').show() ?? {animations}") == [180]


@pytest.mark.parametrize("look", looks("dark", "phone", "desktop", least=2))
async def test_it_is_accessible_and_has_its_picture(stage: Stage, look: str) -> None:
    page = await host(stage, **{"desktop": {}, "dark": DARK, "phone": PHONE}[look])
    await ChatPage(page).shot(f"drawer-{look}-1-closed")
    assert await ChatPage(page).faults() == []
    await own_button(page).click()
    chat = await opened(page)
    stage.chat.turn("用三句话说明什么是大语言模型。", samples.PROSE + samples.CODE, samples.REASONING)
    await chat.in_state("idle")
    await expect(chat.answer).to_be_visible()
    await chat.shot(f"drawer-{look}-2-open")
    assert await chat.faults() == []
