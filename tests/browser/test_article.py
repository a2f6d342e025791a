"""The article's front end: its unchanged calls, with a few lines instead of jQuery and layui."""

from playwright.async_api import expect

from tests.browser.conftest import Stage

ARTICLE = """<!doctype html><html lang="zh"><head><meta charset="utf-8"><title>article</title></head><body>
<button id="ask-ai">AI</button><div class="layui-chat"><div id="answer-box"></div>
<form><textarea class="layui-textarea" name="prompt"></textarea><button lay-submit>send</button></form></div>
<script>
var channelId = 'CHANNEL';
var $ = function (wanted) {
    var found = document.querySelector(wanted);
    return {
        on: function (name, call) { found.addEventListener(name, call); },
        val: function (text) { found.value = text; }
    };
};
$.ajax = function (asked) {
    fetch(asked.url, { method: asked.type, body: asked.data, headers: { 'Content-Type': asked.contentType } })
        .then(function (response) { return response.json(); })
        .then(asked.success);
};
var form = {
    on: function (name, call) {
        document.querySelector('form').addEventListener('submit', function (event) {
            event.preventDefault();
            call({ field: Object.fromEntries(new FormData(event.target)) });
        });
    }
};
window.answers = [];

$("#ask-ai").on("click", function(){
    var streamEvent = new EventSource('/chat/stream?channel='+channelId);
    streamEvent.addEventListener("message_event", function(event){
        data = JSON.parse(event.data);
        document.getElementById('answer-box').innerHTML += data.message;
    });
});
form.on('submit(send)', function(data){
    $.ajax({
        url: '/chat/dialogue?channel='+channelId,
        type: 'POST',
        data: JSON.stringify(data.field),
        contentType :"application/json",
        dataType: 'json',
        success: function(d){
            $(".layui-textarea").val("");
            window.answers.push(d);
        }
    });
    return false;
});
</script></body></html>"""


async def test_the_articles_page_works_unchanged(stage: Stage) -> None:
    stage.chat.pages["article"] = (ARTICLE.replace("CHANNEL", stage.chat.channel), None)
    page = await (await stage.context()).new_page()
    stage.watch.over(page)
    await page.goto(stage.url + "/site/article")
    async with page.expect_response("**/chat/stream?**"):
        await page.locator("#ask-ai").click()
    await page.locator("textarea").fill("你好")
    await page.locator("[lay-submit]").click()
    await expect(page.locator("#answer-box .right p")).to_have_text(["你好"])
    stage.chat.state("thinking")
    stage.chat.say("describe", "<p>想。\n</p>")
    stage.chat.state("answering")
    stage.chat.say("left", "<p>你好！\n</p>", "<p>有什么事？\n</p>")
    await expect(page.locator("#answer-box .left p")).to_have_text(["你好！", "有什么事？"])
    await expect(page.locator("#answer-box > *")).to_have_count(4)
    await expect(page.locator("textarea")).to_have_value("")
    assert await page.evaluate("window.answers") == [{"code": 1, "msg": ""}]
