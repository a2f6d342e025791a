"""The web chat from end to end: real sockets, and a scripted upstream."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.typing import EventDict

from tests.chat.visitor import Stream, Visitor, blocks, states, visitor
from tests.conftest import RunningGateway, RunningProxy, RunProxy
from tests.loopback import until
from tests.raw_upstream import Conversation, RawUpstream, Script, raw_upstream

CHAT = '[chat]\nrate = "1000/second"\n'


def chunk(*, reasoning: str = "", content: str = "", finish: str | None = None) -> bytes:
    """Return an event as Spark's X1 writes it."""
    delta = {"role": "assistant", "reasoning_content": reasoning, "content": content}
    choice = {"delta": delta, "index": 0, "finish_reason": finish}
    return b"data:" + json.dumps({"code": 0, "message": "Success", "choices": [choice]}).encode() + b"\n\n"


DONE = b"data:[DONE]\n\n"


def says(*events: bytes) -> Script:
    """Return an upstream that always sends this answer."""

    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        for event in events:
            await talk.chunk(event)
        await talk.end()

    return script


ANSWER = says(chunk(reasoning="想一想。\n"), chunk(content="你好\n"), chunk(finish="stop"), DONE)


@asynccontextmanager
async def chatting(
    run_proxy: RunProxy, script: Script, chat: str = CHAT, options: str = ""
) -> AsyncIterator[tuple[Visitor, RunningProxy, RawUpstream]]:
    """A visitor, the service, and its upstream."""
    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, more=chat, options=options) as proxy,
        visitor(proxy.url) as someone,
    ):
        yield someone, proxy, upstream


def asked(proxy: RunningProxy) -> list[EventDict]:
    """The log lines of the requests to the model."""
    return [line for line in proxy.exchanges if line.get("caller") == "chat"]


def held() -> tuple[asyncio.Event, Script]:
    """Return an upstream that starts an answer, and ends it when the event is set."""
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(chunk(reasoning="想。\n"))
        await talk.chunk(chunk(content="一。接"))
        if not await first_of(go_on, talk):
            return
        await talk.chunk(chunk(content="着是二。\n"))
        await talk.chunk(DONE)
        await talk.end()

    return go_on, script


async def first_of(go_on: asyncio.Event, talk: Conversation) -> bool:
    """Whether the event was set before the caller left."""
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(go_on.wait()), group.create_task(talk.caller_left())]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
    return go_on.is_set()


# --- the article's flow


async def test_the_articles_flow_on_the_demonstration_gateway(
    run_proxy: RunProxy, gateway: RunningGateway
) -> None:
    async with (
        run_proxy(gateway.url, credential=gateway.credential, more=CHAT) as proxy,
        visitor(proxy.url) as someone,
        someone.listen(after=None) as stream,
    ):
        await someone.ask("天空为什么是蓝的？")
        heard = await stream.turn()
        assert await someone.get("dialogue") == (200, b"Hello Flask-sse !")
    kinds = [block.split("'")[1] for block in blocks(heard)]
    assert kinds[0] == "right"
    assert kinds == sorted(kinds, key=["right", "describe", "left"].index)
    assert kinds.count("describe") == 3
    assert kinds.count("left") > 5
    assert states(heard) == ["waiting", "thinking", "answering", "done"]
    assert all(event.data.keys() == {"message"} for event in heard if event.type == "message_event")
    assert blocks(heard)[0] == "<div class='right'><p>天空为什么是蓝的？</p></div>"
    ids = [tuple(map(int, event.id.split("-"))) for event in heard]
    assert ids == sorted(set(ids))


async def test_the_bytes_are_those_of_flask_sse(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy, ANSWER) as (someone, _, _), someone.listen(after=None) as stream:
        assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert stream.response.headers["X-Accel-Buffering"] == "no"
        await someone.ask("hi")
        await stream.turn()
        opening, _, rest = bytes(stream.raw).partition(b": open\n\n")
        assert opening == b"retry:2000\n\n"
        first, left = rest.split(b"\n\n")[0], [part for part in rest.split(b"\n\n") if b"'left'" in part]
    assert first.startswith(
        b'event:message_event\ndata:{"message": "<div class=\'right\'><p>hi</p></div>"}\nid:'
    )
    assert left[0].splitlines()[1] == (
        b'data:{"message": "<div class=\'left\'><p>\\u4f60\\u597d\\n</p></div>"}'
    )


async def test_the_model_receives_the_configured_options(run_proxy: RunProxy) -> None:
    chat = CHAT + (
        'user = "user_id"\nsystem = "Be kind."\noptions = { temperature = 0.5, x = "${env:X:-s}" }\n'
        'tools = [{ type = "web_search", web_search = { enable = true, search_mode = "deep" } }]\n'
    )
    async with chatting(run_proxy, ANSWER, chat) as (someone, proxy, upstream):
        async with someone.listen() as stream:
            await someone.ask("hi")
            await stream.turn()
        await until(lambda: bool(asked(proxy)))
        request, line = upstream.requests[0], asked(proxy)[-1]
    assert request.target == b"/v1/chat/completions"
    assert request.header("authorization") == ["Bearer static-upstream-token"]
    assert json.loads(request.body) == {
        "model": "x1",
        "user": "user_id",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}],
        "stream": True,
        "tools": [{"type": "web_search", "web_search": {"enable": True, "search_mode": "deep"}}],
        "temperature": 0.5,
        "x": "s",
    }
    assert (line["caller"], line["model"], line["upstream"], line["outcome"]) == ("chat", "x1", "chat", "ok")
    assert (line["path"], line["status"]) == ("/chat/dialogue", 200)


async def test_the_configured_upstream_takes_precedence_over_routes(run_proxy: RunProxy) -> None:
    chat = CHAT + 'upstream = "embed"\n[[routes.models]]\nmatch = "x1"\nupstream = "chat"\nrename = "y"\n'
    async with chatting(run_proxy, ANSWER, chat) as (someone, proxy, upstream):
        async with someone.listen() as stream:
            await someone.ask("hi")
            await stream.turn()
        await until(lambda: bool(asked(proxy)))
        assert asked(proxy)[-1]["upstream"] == "embed"
        assert json.loads(upstream.requests[0].body)["model"] == "x1"


async def test_without_a_configured_upstream_the_routes_decide_and_rename(run_proxy: RunProxy) -> None:
    chat = CHAT + '[[routes.models]]\nmatch = "x1"\nupstream = "embed"\nrename = "spark-x"\n'
    async with chatting(run_proxy, ANSWER, chat) as (someone, proxy, upstream):
        async with someone.listen() as stream:
            await someone.ask("hi")
            await stream.turn()
        await until(lambda: bool(asked(proxy)))
        assert asked(proxy)[-1]["upstream"] == "embed"
        assert json.loads(upstream.requests[0].body)["model"] == "spark-x"


# --- replay, tabs, stop


async def test_a_page_that_reloads_during_an_answer_gets_each_event_once(run_proxy: RunProxy) -> None:
    go_on, script = held()
    async with chatting(run_proxy, script) as (someone, _, _):
        async with someone.listen() as first:
            await someone.ask("数")
            while "一。" not in (seen := await first.next()).html:
                pass
        async with someone.listen() as reloaded, someone.listen(after=seen.id) as resumed:
            go_on.set()
            everything, rest = await reloaded.turn(), await resumed.turn()
    assert [block.split("'")[1] for block in blocks(everything)] == ["right", "describe", "left", "left"]
    assert rest == everything[everything.index(seen) + 1 :]


async def test_last_event_id_of_the_header_takes_precedence(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy, ANSWER) as (someone, proxy, _):
        async with someone.listen() as stream:
            await someone.ask("hi")
            heard = await stream.turn()
        address = f"{proxy.url}/chat/stream?channel={someone.channel}&last_event_id=0-0"
        async with someone.http.get(address, headers={"Last-Event-ID": heard[-2].id}) as response:
            block = b""
            while heard[-1].id.encode() not in block:
                block += await response.content.readline()
    assert b"message_event" not in block


@pytest.mark.parametrize("header", ["5", "17", "nonsense", "1-", "-1-0", "0x1-0", "1-0, 2-0", f"{2**64}-0"])
async def test_an_event_id_of_another_program_does_not_hide_the_parameter(
    run_proxy: RunProxy, header: str
) -> None:
    async with chatting(run_proxy, ANSWER) as (someone, proxy, _):
        async with someone.listen() as stream:
            await someone.ask("hi")
            heard = await stream.turn()
        address = f"{proxy.url}/chat/stream?channel={someone.channel}&last_event_id={heard[0].id}"
        async with someone.http.get(address, headers={"Last-Event-ID": header}) as response:
            resumed = Stream(response)
            assert await resumed.turn() == heard[1:]


async def test_a_closed_tab_does_not_end_the_answer(run_proxy: RunProxy) -> None:
    go_on, script = held()
    async with chatting(run_proxy, script) as (someone, proxy, _):
        async with someone.listen() as stream:
            await someone.ask("数")
            while "一。" not in (await stream.next()).html:
                pass
        assert (await someone.get("session"))[1]["busy"] is True
        go_on.set()
        await until(lambda: bool(asked(proxy)))
        async with someone.listen() as again:
            heard = await again.turn()
        assert (await someone.get("session"))[1]["busy"] is False
    assert "接着是二。" in blocks(heard)[-1]
    assert asked(proxy)[-1]["outcome"] == "ok"


async def test_a_stop_ends_the_answer_and_closes_the_upstream(run_proxy: RunProxy) -> None:
    _, script = held()
    async with chatting(run_proxy, script) as (someone, proxy, upstream), someone.listen() as stream:
        await someone.ask("数")
        while "一。" not in (await stream.next()).html:
            pass
        assert await someone.post("stop") == (200, {"code": 1, "msg": ""})
        heard = await stream.turn()
        await until(lambda: upstream.connections == 0)
        await until(lambda: bool(asked(proxy)))
        assert asked(proxy)[-1]["outcome"] == "stopped"
        assert states(heard) == ["stopped"]
        assert blocks(heard) == ["<div class='left'><p>接</p></div>"]  # the half sentence that was there


async def test_one_dialogue_at_a_time(run_proxy: RunProxy) -> None:
    go_on, script = held()
    async with chatting(run_proxy, script) as (someone, _, upstream), someone.listen() as stream:
        await someone.ask("一")
        await stream.until("answering")
        status, answer = await someone.post("dialogue", "二")
        assert (status, answer["code"]) == (200, 1)
        assert "An answer is still being written" in answer["msg"]
        go_on.set()
        await stream.turn()
        await someone.ask("三")
        await stream.turn()
    assert len(upstream.requests) == 2


# --- memory


async def test_the_last_turns_are_sent_until_a_reset(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy, ANSWER, CHAT + "turns = 2\n") as (someone, _, upstream):
        async with someone.listen() as stream:
            for prompt in ("a", "b", "c", "d"):
                await someone.ask(prompt)
                await stream.turn()
            assert await someone.post("reset") == (200, {"code": 1, "msg": ""})
            assert states(await stream.until("reset")) == ["reset"]
            await someone.ask("e")
            await stream.turn()
        async with someone.listen() as reloaded:
            heard = await reloaded.turn()
    asked = [[m["content"] for m in json.loads(r.body)["messages"]] for r in upstream.requests]
    assert asked[3] == ["b", "你好\n", "c", "你好\n", "d"]
    assert asked[4] == ["e"]
    assert states(heard) == ["reset", "waiting", "thinking", "answering", "done"]


async def test_regenerate_asks_the_last_question_again(run_proxy: RunProxy) -> None:
    async with (
        chatting(run_proxy, ANSWER, CHAT + "turns = 0\n") as (someone, _, upstream),
        someone.listen() as stream,
    ):
        assert "no question yet" in (await someone.post("regenerate"))[1]["msg"]
        await someone.ask("a")
        await stream.turn()
        assert await someone.post("regenerate") == (200, {"code": 1, "msg": ""})
        heard = await stream.turn()
    assert states(heard) == ["regenerating", "waiting", "thinking", "answering", "done"]
    assert upstream.requests[0].body == upstream.requests[1].body


async def test_a_reset_ends_a_running_answer(run_proxy: RunProxy) -> None:
    _, script = held()
    async with chatting(run_proxy, script) as (someone, _, upstream), someone.listen() as stream:
        await someone.ask("数")
        await stream.until("answering")
        assert await someone.post("reset") == (200, {"code": 1, "msg": ""})
        assert states(await stream.until("reset")) == ["stopped", "reset"]
        await until(lambda: upstream.connections == 0)


# --- failures

SPARK_ERRORS = [
    b'{"error":{"message":"invalid param model:x (sid: cht1)","type":"e","param":null,"code":"10005"}}',
    b'{"error":{"code":10012,"message":"EngineInternalError"}}',
    b'{"code":10012,"message":"EngineInternalError","sid":"cht000b1"}',
    b'{"code":10014,"msg":"the answer is unsafe","Sid":"cht000b1","timeStamp":1}',
]


@pytest.mark.parametrize("body", SPARK_ERRORS)
@pytest.mark.parametrize("options", ["", 'repairs = ["ragflow"]'])
@pytest.mark.parametrize("place", ["status", "whole", "stream", "mid-answer"])
async def test_every_error_of_spark_becomes_a_block_after_the_text(
    run_proxy: RunProxy, body: bytes, options: str, place: str
) -> None:
    async def script(talk: Conversation) -> None:
        if place in {"status", "whole"}:
            status = "400 Bad Request" if place == "status" else "200 OK"
            await talk.answer(body, "Content-Type: application/json", status=status)
            return
        await talk.start_stream()
        if place == "mid-answer":
            await talk.chunk(chunk(content="先说的话"))
        await talk.chunk(b"data:" + body + b"\n\n")
        await talk.end()

    async with (
        chatting(run_proxy, script, options=options) as (someone, _, _),
        someone.listen() as stream,
    ):
        await someone.ask("hi")
        heard = await stream.turn()
    *_, error = shown = blocks(heard)
    assert error.startswith("<div class='error'>")
    assert "<p>" not in error
    assert "cht" not in error
    assert states(heard)[-1] == "failed"
    assert [block for block in shown if "先说的话" in block] == shown[1:-1] or place != "mid-answer"


@pytest.mark.parametrize("place", ["whole", "stream"])
@pytest.mark.parametrize("error", [{"error": {"message": "no"}}, {"message": "no"}], ids=["openai", "flat"])
async def test_the_log_has_no_token_that_an_error_of_the_model_quotes(
    run_proxy: RunProxy, error: dict[str, object], place: str
) -> None:
    async def script(talk: Conversation) -> None:
        quoted = {"code": f"refused {talk.request.header('authorization')[0]}"}
        inside = error.get("error")
        body = {"error": {**inside, **quoted}} if isinstance(inside, dict) else {**error, **quoted}
        if place == "whole":
            await talk.answer(json.dumps(body).encode(), "Content-Type: application/json")
            return
        await says(b"data: " + json.dumps(body).encode() + b"\n\n")(talk)

    async with chatting(run_proxy, script) as (someone, proxy, _), someone.listen() as stream:
        await someone.ask("hi")
        assert "error" in blocks(await stream.turn())[-1]
        await until(lambda: bool(asked(proxy)))
    # The fixture looks for the token in every line.
    assert asked(proxy)[-1]["reason"] == "refused Bearer " + "*" * len("static-upstream-token")


@pytest.mark.parametrize("fault", ["reset", "end", "silence"])
async def test_a_broken_stream_keeps_its_text_and_is_called_cut_off(run_proxy: RunProxy, fault: str) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(chunk(content="半句"))
        if fault == "reset":
            talk.reset()
        elif fault == "end":
            await talk.end()
        else:
            await talk.caller_left()

    async with (
        chatting(run_proxy, script, options="timeouts = { idle = 0.2 }") as (someone, _, _),
        someone.listen() as stream,
    ):
        await someone.ask("hi")
        heard = await stream.turn()
    assert [block.split("'")[1] for block in blocks(heard)] == ["right", "left", "error"]
    assert "半句" in blocks(heard)[1]
    assert "The answer was cut off" in blocks(heard)[2]


async def test_an_unreachable_upstream_is_reported(run_proxy: RunProxy) -> None:
    async with run_proxy("http://127.0.0.1:9", more=CHAT) as proxy, visitor(proxy.url) as someone:
        async with someone.listen() as stream:
            await someone.ask("hi")
            heard = await stream.turn()
        await until(lambda: bool(asked(proxy)))
    assert "cannot be reached" in blocks(heard)[-1]
    assert asked(proxy)[-1]["outcome"] == "upstream_unreachable"


async def test_a_malformed_chunk_is_skipped(run_proxy: RunProxy) -> None:
    script = says(chunk(content="一。\n"), b"data:{nonsense\n\n", chunk(content="二。\n"), DONE)
    async with chatting(run_proxy, script) as (someone, proxy, _), someone.listen() as stream:
        await someone.ask("hi")
        heard = await stream.turn()
        assert [line["event"] for line in proxy.lines].count("chat_chunk_skipped") == 1
    assert states(heard)[-1] == "done"
    assert "二。" in blocks(heard)[-1]


@pytest.mark.parametrize("events", [(DONE,), (chunk(finish="stop"), DONE)])
async def test_an_empty_answer_is_reported(run_proxy: RunProxy, events: Sequence[bytes]) -> None:
    async with chatting(run_proxy, says(*events)) as (someone, _, _), someone.listen() as stream:
        await someone.ask("hi")
        heard = await stream.turn()
    assert "gave no answer" in blocks(heard)[-1]


async def test_an_answer_that_takes_too_long_is_ended(run_proxy: RunProxy) -> None:
    _, script = held()
    chat = CHAT + "max_seconds = 0.2\n"
    async with chatting(run_proxy, script, chat) as (someone, _, upstream), someone.listen() as stream:
        await someone.ask("数")
        heard = await stream.turn()
        await until(lambda: upstream.connections == 0)
    assert "took too long" in blocks(heard)[-1]
    assert states(heard)[-1] == "failed"


async def test_the_caller_chat_may_have_its_own_limits(run_proxy: RunProxy) -> None:
    chat = CHAT + '[[access.keys]]\nname = "chat"\nkey = "sk-chat-31"\nrate = "1/hour"\n'
    async with chatting(run_proxy, ANSWER, chat) as (someone, _, upstream), someone.listen() as stream:
        await someone.ask("a")
        await stream.turn()
        await someone.ask("b")
        heard = await stream.turn()
    assert "Too many are asking" in blocks(heard)[-1]
    assert len(upstream.requests) == 1


# --- the end of the service


async def test_a_drain_ends_streams_and_rejects_questions(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy, ANSWER) as (someone, proxy, upstream), someone.listen() as stream:
        await stream.block()
        proxy.drain.started = True
        with pytest.raises(EOFError):
            await stream.next()
        assert "restarting" in (await someone.post("dialogue", "hi"))[1]["msg"]
    assert upstream.requests == []


async def test_a_dialogue_ends_with_an_error_when_the_service_drains(run_proxy: RunProxy) -> None:
    _, script = held()
    async with chatting(run_proxy, script) as (someone, proxy, upstream), someone.listen() as stream:
        await someone.ask("数")
        await stream.until("answering")
        proxy.drain.started = True
        heard = await stream.turn()
        with pytest.raises(EOFError):
            await stream.next()
        await until(lambda: upstream.connections == 0)
    assert "restarting" in blocks(heard)[-1]
    assert states(heard) == ["failed"]


async def test_a_dialogue_without_readers_does_not_delay_shutdown(run_proxy: RunProxy) -> None:
    _, script = held()
    async with chatting(run_proxy, script) as (someone, _, upstream), someone.listen() as stream:
        await someone.ask("数")
        await stream.until("answering")
    await until(lambda: upstream.connections == 0)
