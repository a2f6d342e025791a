"""config/spark.toml with an upstream that acts as Spark: the article's request, and the streamed answer."""

import asyncio
import json
from pathlib import Path

from proxy.app import create_app
from tests.chat.visitor import blocks, states, visitor
from tests.config.examples import ROOT, Surroundings
from tests.loopback import serve_on_loopback
from tests.pace import PATIENCE
from tests.raw_upstream import Conversation, raw_upstream

SPARK = "https://spark-api-open.xf-yun.com/v2"


def frame(**delta: str) -> bytes:
    """Return an event as X1 streams it: https://www.xfyun.cn/doc/spark/X1http.html."""
    choice = {"delta": {"role": "assistant", **delta}, "index": 0}
    told = {"code": 0, "message": "Success", "sid": "cha000b0", "id": "cha000b0", "created": 1}
    return b"data:" + json.dumps({**told, "choices": [choice]}, ensure_ascii=False).encode() + b"\n\n"


async def spark(talk: Conversation) -> None:
    """Send thoughts, an answer, a usage, and the end."""
    await talk.start_stream()
    for event in (
        frame(reasoning_content="用户在问好。", content=""),
        frame(reasoning_content="", content="你好！"),
        frame(content="很高兴见到你。"),
        b'data:{"code":0,"message":"Success","sid":"cha000b0","choices":[],'
        b'"usage":{"prompt_tokens":5,"completion_tokens":12,"total_tokens":17}}\n\n',
        b"data:[DONE]\n\n",
    ):
        await talk.chunk(event)
    await talk.end()


async def test_the_article_on_spark(tmp_path: Path) -> None:
    text = (ROOT / "config" / "spark.toml").read_text()
    assert text.count(SPARK) == 1
    async with raw_upstream(spark) as upstream:
        settings = Surroundings(tmp_path).load(text.replace(SPARK, f"{upstream.url}/v2"))
        async with (
            serve_on_loopback(create_app(settings)) as url,
            visitor(url) as someone,
            someone.listen() as stream,
            asyncio.timeout(PATIENCE),
        ):
            await someone.ask("你好")
            heard = await stream.turn()
    (request,) = upstream.requests
    assert request.target == b"/v2/chat/completions"
    assert request.header("authorization") == ["Bearer of-spark-api-password"]
    assert json.loads(request.body) == {
        "model": "x1",
        "user": "user_id",
        "messages": [{"role": "user", "content": "你好"}],
        "stream": True,
        "tools": [{"type": "web_search", "web_search": {"enable": True, "search_mode": "deep"}}],
    }
    assert states(heard) == ["waiting", "thinking", "answering", "done"]
    assert blocks(heard) == [
        "<div class='right'><p>你好</p></div>",
        "<div class='describe'><p>用户在问好。</p></div>",
        "<div class='left'><p>你好！</p></div>",
        "<div class='left'><p>很高兴见到你。</p></div>",
    ]
