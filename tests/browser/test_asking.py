"""One question and its answer: what a visitor sees and can do during the answer and after it."""

from playwright.async_api import Route, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Stage
from tests.browser.scripted_chat import Refusal

WRITTEN = """\
## 写法

1. 甲
2. 乙，`短`的
   - 里面的

- [x] 做完

```python
print(1)
```

| 名 | 值 |
| --- | --- |
| a | 1 |

> 引用

最后一句。又一句。
"""
MIXED = """\
1. 先装：

   ```bash
   pip install a

   pip install b
   ```

   再看 `x`。
2. 后用：

   | a | b |
   | --- | --- |
   | 1 \\| 2 | 3 |

   > 引用
   > 下一行

   - 里面

     ```
     深
     ```

- 短
  ```js
  f()
  ```

用 ``a`b`` 和 `` `c` ``

````markdown
```
里


外
```
````
"""
NO_CLIPBOARD = "() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed')); }"


async def test_paragraphs_arrive_one_by_one_and_are_joined_where_they_were_split(stage: Stage) -> None:
    page = await stage.open()
    await page.ask("你好")
    await expect(page.questions).to_have_text("你好")
    await expect(page.input).to_have_value("")
    assert stage.chat.prompts == ["你好"]
    stage.chat.state("answering")
    stage.chat.say("left", "<p>第一句。</p>")
    await expect(page.answer.locator("p")).to_have_text(["第一句。"])
    stage.chat.say("left", "<p>同一段的<strong>第二句</strong>。\n</p>")
    await expect(page.answer.locator("p")).to_have_text(["第一句。同一段的第二句。"])
    stage.chat.say("left", "<p>新的一段。\n</p>")
    await expect(page.answer.locator("p")).to_have_text(["第一句。同一段的第二句。", "新的一段。"])
    await page.in_state("answering")
    stage.chat.state("done", seconds=2.4)
    await page.in_state("idle")
    await expect(page.turns.locator(".took")).to_have_text("用时 2 秒")


async def without_date(route: Route) -> None:
    """Keep the page from correcting its clock: a response that arrives late would shift it by seconds."""
    response = await route.fetch()
    headers = {name: value for name, value in response.headers.items() if name != "date"}
    await route.fulfill(response=response, headers=headers)


async def test_reasoning_is_open_while_it_runs_and_folds_when_the_answer_begins(stage: Stage) -> None:
    context = await stage.context()
    await context.route("**/chat/session*", without_date)
    page = await ChatPage.open(context, stage.url + "/chat/", stage.watch)
    began = await page.stop_clock() - 6200
    stage.chat.ask("为什么？")
    await expect(page.turns.locator(".pending")).to_have_text("等待模型开始")
    stage.chat.state("thinking", at=began)
    await expect(page.reasoning.locator("summary")).to_have_text("思考中 · 6 秒")
    stage.chat.say("describe", "<p>先想想。\n</p>")
    await expect(page.reasoning).to_have_attribute("open", "")
    await expect(page.reasoning.locator("p")).to_have_text(["先想想。"])
    await page.page.clock.run_for(1000)
    await expect(page.reasoning.locator("summary")).to_have_text("思考中 · 7 秒")
    stage.chat.state("answering", at=began + 9200)
    await expect(page.reasoning).not_to_have_attribute("open", "")
    await expect(page.reasoning.locator("summary")).to_have_text("已思考 · 9 秒")
    stage.chat.say("left", "<p>因为如此。\n</p>")
    await expect(page.answer).to_have_text("因为如此。")


async def test_reasoning_that_the_reader_opened_stays_open(stage: Stage) -> None:
    page = await stage.open()
    stage.chat.ask("为什么？")
    stage.chat.state("thinking")
    stage.chat.say("describe", "<p>先想想。\n</p>")
    await page.reasoning.locator("summary").click()
    await page.reasoning.locator("summary").click()
    stage.chat.state("answering")
    stage.chat.say("left", "<p>因为如此。\n</p>")
    await expect(page.answer).to_be_visible()
    await expect(page.reasoning).to_have_attribute("open", "")


async def test_send_becomes_stop_while_an_answer_runs_and_the_turn_says_that_it_was_stopped(
    stage: Stage,
) -> None:
    page = await stage.open()
    await expect(page.button).to_have_attribute("aria-label", "发送")
    await page.ask("讲个故事")
    await page.in_state("waiting")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>从前，</p>")
    await expect(page.button).to_have_attribute("aria-label", "停止回答")
    await page.button.click()
    await page.in_state("idle")
    assert stage.chat.posts == ["dialogue", "stop"]
    await expect(page.turns.locator(".ending")).to_contain_text("已停止")
    await expect(page.answer).to_have_text("从前，")
    await expect(page.button).to_have_attribute("aria-label", "发送")


async def test_only_the_last_answer_can_be_regenerated_and_its_text_is_replaced(stage: Stage) -> None:
    page = await stage.open()
    stage.chat.turn("一", "第一个回答。\n")
    stage.chat.turn("二", "第二个回答。\n", "想。\n")
    retry = page.page.locator("llm-chat .retry:visible")
    await expect(retry).to_have_count(1)
    await retry.click()
    await page.in_state("waiting")
    assert stage.chat.posts == ["regenerate"]
    await expect(page.turns.last.locator(".answer, details")).to_have_count(0)
    stage.chat.state("answering")
    stage.chat.say("left", "<p>更好的回答。\n</p>")
    stage.chat.state("done", seconds=1)
    await expect(page.answer).to_have_text("更好的回答。")
    await expect(page.questions).to_have_text(["一", "二"])


async def test_answers_and_code_are_copied_as_their_text(stage: Stage) -> None:
    page = await stage.open(permissions=["clipboard-read", "clipboard-write"])
    stage.chat.turn("写", WRITTEN)
    await page.stop_clock()  # "copied" is shown for two seconds
    copy = page.page.locator("llm-chat .code button")
    await copy.click()
    await expect(copy).to_have_text("已复制")
    assert await page.page.evaluate("navigator.clipboard.readText()") == "print(1)"
    await page.page.locator("llm-chat .ending button", has_text="复制回答").click()
    await expect(page.page.locator("llm-chat .ending")).to_contain_text("已复制")
    text = await page.page.evaluate("navigator.clipboard.readText()")
    assert text == WRITTEN.strip()


async def test_what_is_copied_renders_as_the_answer_did(stage: Stage) -> None:
    page = await stage.open(permissions=["clipboard-read", "clipboard-write"])
    stage.chat.turn("写", MIXED)
    await page.page.locator("llm-chat .ending button", has_text="复制回答").click()
    await expect(page.page.locator("llm-chat .ending")).to_contain_text("已复制")
    text = await page.page.evaluate("navigator.clipboard.readText()")
    assert text == MIXED.strip()


async def test_a_question_is_copied_with_its_lines_while_it_is_edited(stage: Stage) -> None:
    page = await stage.open(permissions=["clipboard-read", "clipboard-write"])
    stage.chat.turn("第一行\n\n    第三行", "好。\n")
    await page.turns.hover()
    await page.turns.get_by_role("button", name="编辑").click()
    await expect(page.page.locator("llm-chat .editor textarea")).to_have_value("第一行\n\n    第三行")
    await page.page.locator("llm-chat .ending button", has_text="复制问答").click()
    await expect(page.page.locator("llm-chat .ending")).to_contain_text("已复制")
    text = await page.page.evaluate("navigator.clipboard.readText()")
    assert "\n\n第一行\n\n    第三行\n\n" in text


async def test_copying_works_where_the_browser_has_no_clipboard(stage: Stage) -> None:
    page = await stage.open(permissions=["clipboard-read"])
    await page.page.evaluate(NO_CLIPBOARD)
    stage.chat.turn("写", "```\nls -l\n```\n")
    await page.stop_clock()
    copy = page.page.locator("llm-chat .code button")
    await copy.click()
    await expect(copy).to_have_text("已复制")
    await expect(copy).to_be_focused()
    assert await page.page.evaluate("navigator.clipboard.readText()") == "ls -l"


async def test_a_failure_announces_its_cause_and_offers_one_action(stage: Stage) -> None:
    page = await stage.open()
    await page.ask("问")
    await page.in_state("waiting")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>已经说出的话，</p>")
    stage.chat.message("<div class='error'>模型暂时繁忙</div>")
    stage.chat.state("failed")
    await expect(page.failure).to_have_attribute("role", "alert")
    await expect(page.failure.locator(".cause")).to_have_text("模型暂时繁忙")
    await expect(page.answer).to_have_text("已经说出的话，")
    await page.failure.get_by_role("button", name="再试一次").click()
    await page.in_state("waiting")
    assert stage.chat.posts == ["dialogue", "regenerate"]
    await expect(page.turns.locator(".failure")).to_have_count(0)


REFUSALS = {
    "发得太快了，请过 2 秒再发。": Refusal(429, "Too many requests!", {"Retry-After": "2"}),
    "这个对话属于另一个会话，请刷新页面后再试。": Refusal(403, "not yours"),
    "问题太长，最多 9 个字。": Refusal(200, "?", fields={"reason": "prompt_too_long", "number": 9}),
    "服务正在重启，请稍后再问。": Refusal(503, "?", fields={"reason": "restarting"}),
    "参数错误 bad model": Refusal(200, "参数错误 bad model"),
    "没有送到，文字还在输入框里。请再发一次。": Refusal(500, ""),
}


async def test_a_rejection_is_shown_and_the_text_stays_in_the_input(stage: Stage) -> None:
    page = await stage.open()
    for number, (said, refusal) in enumerate(REFUSALS.items(), 1):
        stage.chat.refusal = refusal
        await page.ask(f"你好 {number}")
        await expect(page.refusal).to_have_text(said)
        await expect(page.input).to_have_value(f"你好 {number}")
        await page.input.press("Enter")
        await expect(page.questions.last).to_have_text(f"你好 {number}")
        await expect(page.refusal).to_be_empty()
        stage.chat.state("done", seconds=1)
        await page.in_state("idle")
    await expect(page.questions).to_have_count(len(REFUSALS))


async def test_an_error_code_is_explained_in_the_language_of_the_page(stage: Stage) -> None:
    page = await stage.open()
    stage.chat.ask("问")
    stage.chat.message("<div class='error'>回答中断了。It was cut off.</div>", reason="cut_off")
    stage.chat.state("failed")
    cause = page.failure.locator(".cause")
    await expect(cause).to_have_text("回答中断了，请重试。")
    await page.page.locator("llm-chat .language").click()
    await expect(cause).to_have_text("The answer was cut off. Try again.")


async def test_the_focus_stays_when_an_answer_is_regenerated(stage: Stage) -> None:
    page = await stage.open()
    stage.chat.turn("一", "回答。\n")
    retry = page.page.locator("llm-chat .retry:visible")
    await retry.focus()
    await retry.press("Enter")
    await page.in_state("waiting")
    await expect(page.input).to_be_focused()


async def test_an_answer_that_does_not_stop_can_be_left(stage: Stage) -> None:
    page = await stage.open()
    await page.stop_clock()
    stage.chat.deaf = True
    await page.ask("一")
    await page.in_state("waiting")
    await page.button.click()
    await expect(page.button).to_have_attribute("aria-label", "正在停止")
    await page.page.clock.fast_forward(6000)
    await expect(page.refusal).to_have_text("没能停下来。再按一次就不再等它。")
    await page.button.click()
    await page.in_state("idle")
    await expect(page.refusal).to_be_empty()
    await page.ask("二")
    await expect(page.questions).to_have_text(["一", "二"])


async def test_a_failed_stop_is_shown_and_the_answer_can_be_left(stage: Stage) -> None:
    page = await stage.open()
    await page.ask("一")
    await page.in_state("waiting")
    stage.chat.refusal = Refusal(500, "")
    await page.button.click()
    await expect(page.refusal).to_have_text("没有送到，请再试一次。")
    await page.button.click()
    await page.in_state("idle")


async def test_an_example_is_asked_at_once(stage: Stage) -> None:
    page = await stage.open()
    example = page.page.locator("llm-chat .example").first
    text = await example.text_content()
    await example.click()
    await expect(page.questions).to_have_text([text or ""])
    await expect(page.empty).to_be_hidden()


async def test_an_example_leaves_a_draft_alone(stage: Stage) -> None:
    page = await stage.open()
    await page.input.fill("还没写完的")
    example = page.page.locator("llm-chat .example").first
    text = await example.text_content()
    await example.click()
    await expect(page.questions).to_have_text([str(text)])
    await expect(page.input).to_have_value("还没写完的")


async def test_events_without_states_and_ids_are_shown_too(stage: Stage) -> None:
    page = await stage.open()
    stage.chat.message("<div class='right'><p>来自另一个站点</p></div>", with_id=False)
    stage.chat.message("<div class='describe'><p>想一想。</p></div>", with_id=False)
    stage.chat.message("<div class='left'><p>好的。\n</p></div>", with_id=False)
    stage.chat.message("<div class='left'><p>好的。\n</p></div>", with_id=False)
    await expect(page.answer.locator("p")).to_have_text(["好的。", "好的。"])
    await expect(page.reasoning.locator("summary")).to_have_text("思考过程")
    await page.in_state("idle")


async def test_lists_continue_and_headings_nest_across_pieces(stage: Stage) -> None:
    page = await stage.open()
    stage.chat.turn("列", "- 甲\n- 乙\n\n1. 一\n2. 二\n\n段\n\n1. 又一\n\n### 大\n#### 小\n### 又大\n")
    await expect(page.answer.locator("ul")).to_have_count(1)
    await expect(page.answer.locator("ol")).to_have_count(2)
    await expect(page.answer.locator("h3")).to_have_text(["大", "又大"])
    await expect(page.answer.locator("h4")).to_have_text(["小"])
