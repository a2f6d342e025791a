"""Repairs in the relay: faults that break RAGFlow and Dify are cured if, and only if, repairs are enabled."""

import asyncio
import json
from typing import Any

import pytest

from tests.conftest import RunProxy
from tests.integration.ragflow import RETRIED, kind_of
from tests.loopback import until
from tests.raw_caller import RawAnswer, raw_caller
from tests.raw_upstream import Conversation, RawUpstream, raw_upstream, stream_from

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
JSON = "Content-Type: application/json"
RAGFLOW = 'repairs = ["ragflow"]'
STREAM = {"model": "m", "stream": True}
DONE = b"data: [DONE]\n\n"


def chunk(**fields: Any) -> bytes:
    """Return one event of a chat stream."""
    return b"data: " + json.dumps({"id": "1", "object": "chat.completion.chunk", **fields}).encode() + b"\n\n"


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return one choice."""
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def chunks_of(body: bytes) -> list[dict[str, Any]]:
    """Return the chunks of a stream, without its end marker."""
    lines = [line[5:].strip() for line in body.split(b"\n") if line.startswith(b"data:")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


async def relayed(
    run_proxy: RunProxy,
    answer: bytes | list[bytes],
    *,
    options: str = RAGFLOW,
    path: str = CHAT,
    body: dict[str, Any] | None = None,
    content_type: str | None = None,
    status: str = "200 OK",
) -> tuple[RawAnswer, bytes, RawUpstream]:
    """Send a request through the proxy; the upstream answers a list as a stream with one chunk per entry."""

    async def script(talk: Conversation) -> None:
        if isinstance(answer, bytes):
            await talk.answer(answer, f"Content-Type: {content_type or 'application/json'}", status=status)
            return
        await talk.start_stream(content_type=content_type or "text/event-stream")
        for piece in answer:
            await talk.chunk(piece)
        await talk.end()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, options=options) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", path, JSON, body=json.dumps(body or {"model": "m"}).encode())
        head = await caller.answer()
        return head, await caller.body(head), upstream


async def test_fields_that_the_upstream_would_reject_are_removed(run_proxy: RunProxy) -> None:
    body = {"model": "m", "tools": [], "tool_choice": "auto", "n": 1.5, "messages": [{"role": "user"}]}
    _, _, upstream = await relayed(run_proxy, b"{}", body=body)
    assert json.loads(upstream.requests[0].body) == {"model": "m", "n": 1.5, "messages": [{"role": "user"}]}
    _, _, upstream = await relayed(run_proxy, b"{}", body=body, options="")
    assert upstream.requests[0].body == json.dumps(body).encode()


async def test_a_usage_chunk_is_sent_only_if_requested(run_proxy: RunProxy) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    events = [chunk(**delta(content="a")), chunk(**delta("stop")), chunk(choices=[], usage=usage), DONE]
    _, body, _ = await relayed(run_proxy, events, body=STREAM)
    assert all(each["choices"] for each in chunks_of(body))
    assert body.endswith(DONE)
    asked = {**STREAM, "stream_options": {"include_usage": True}}
    _, body, _ = await relayed(run_proxy, events, body=asked)
    assert chunks_of(body)[-1]["usage"] == usage


@pytest.mark.parametrize("asked", [True, False])
async def test_a_whole_response_that_becomes_a_stream_is_counted_like_a_stream(
    run_proxy: RunProxy, *, asked: bool
) -> None:
    async def script(talk: Conversation) -> None:
        message = {"role": "assistant", "content": "Hi"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 30, "completion_tokens": 50}
        await talk.answer(json.dumps({"choices": [choice], "usage": usage}).encode(), JSON)

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, options=RAGFLOW) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        body = {**STREAM, "stream_options": {"include_usage": asked}}
        await caller.send("POST", CHAT, JSON, body=json.dumps(body).encode())
        told = await caller.body(await caller.answer())
        await until(lambda: bool(proxy.exchanges))
    line = proxy.exchanges[0]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (30, 50)
    assert line["events"] == told.count(b"\n\n")


async def test_the_first_chunk_of_azure_and_a_null_delta_are_repaired(run_proxy: RunProxy) -> None:
    events = [
        chunk(choices=[], prompt_filter_results=[]),
        chunk(choices=[{"index": 0, "delta": None}]),
        chunk(**delta("stop", content="all at once")),
        DONE,
    ]
    _, body, _ = await relayed(run_proxy, events, body=STREAM)
    chunks = chunks_of(body)
    assert [len(each["choices"]) for each in chunks] == [1] * len(chunks)
    assert all(isinstance(each["choices"][0]["delta"], dict) for each in chunks)
    assert "".join(each["choices"][0]["delta"].get("content") or "" for each in chunks) == "all at once"
    for each in chunks:  # content and finish reason are in separate chunks
        choice = each["choices"][0]
        assert not (choice["delta"].get("content") and choice.get("finish_reason"))


async def test_a_repaired_stream_is_not_held_back(run_proxy: RunProxy) -> None:
    go_on = asyncio.Queue[bytes]()
    async with (
        raw_upstream(stream_from(go_on)) as upstream,
        run_proxy(upstream.url, options=RAGFLOW) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=json.dumps(STREAM).encode())
        for number in range(3):
            event = chunk(**delta(content=str(number)))
            go_on.put_nowait(event)
            if number == 0:
                await caller.answer()
            assert await caller.chunk() == event
        for event in (chunk(**delta("stop")), DONE, b""):
            go_on.put_nowait(event)
        assert (await caller.chunk()).startswith(chunk(**delta("stop")))


@pytest.mark.parametrize(
    ("answer", "content_type", "status"),
    [
        (b'{"error": {"message": "no such model", "type": "x", "code": 404}}', "application/json", 404),
        (b"<html>login</html>", "text/html", 502),
        (b"", "application/json", 502),
    ],
)
async def test_an_error_inside_a_200_gets_an_error_status(
    run_proxy: RunProxy, answer: bytes, content_type: str, status: int
) -> None:
    head, body, _ = await relayed(run_proxy, answer, content_type=content_type)
    assert head.status == status
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    head, body, _ = await relayed(run_proxy, answer, content_type=content_type, options="")
    assert (head.status, body) == (200, answer)


async def test_a_stream_that_begins_with_a_vendors_error_gets_an_error_status(run_proxy: RunProxy) -> None:
    spark = b'data: {"code":11200,"message":"AppIdNoAuthError","sid":"cht000"}\n\n'
    head, body, _ = await relayed(run_proxy, [spark], body=STREAM)
    assert head.status >= 400
    assert "AppIdNoAuthError" in json.loads(body)["error"]["message"]


async def test_a_vendors_error_in_mid_stream_is_sent_once(run_proxy: RunProxy) -> None:
    events = [chunk(**delta(content="a")), b'data: {"code":10013,"message":"audit","sid":"cht000"}\n\n']
    head, body, _ = await relayed(run_proxy, events, body=STREAM)
    errors = [each["error"] for each in chunks_of(body) if "error" in each]
    assert head.status == 200
    assert len(errors) == 1
    assert "audit" in errors[0]["message"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (b'data: {"code":10013,"message":"audit","sid":"cht000"}\n\n', "content_filter"),
        (b"data: overloaded\n\n", "the upstream sent an event that is not JSON"),
    ],
)
async def test_a_stream_that_repairs_end_with_an_error_has_a_reason_in_the_log(
    run_proxy: RunProxy, event: bytes, reason: str
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(chunk(**delta(content="a")))
        await talk.chunk(event)
        await talk.end()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, options=RAGFLOW) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=json.dumps(STREAM).encode())
        await caller.body(await caller.answer())
    line = proxy.exchanges[-1]
    assert (line["status"], line["outcome"], line["reason"]) == (200, "error_inside", reason)


async def test_embeddings_are_sorted_and_counted(run_proxy: RunProxy) -> None:
    by_model = '[[routes.models]]\nmatch = "e"\nupstream = "chat"'
    answer = b'{"data":[{"index":1,"embedding":[1.10]},{"index":0,"embedding":[1E5]}],"model":"e"}'

    async def script(talk: Conversation) -> None:
        await talk.answer(answer, JSON)

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, more=by_model, options=RAGFLOW) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", EMBEDDINGS, JSON, body=b'{"model": "e", "input": ["a", "b"]}')
        head = await caller.answer()
        body = await caller.body(head)
    assert [item["index"] for item in json.loads(body)["data"]] == [0, 1]
    assert b"1.10" in body  # numbers keep their spelling
    assert b"1E5" in body
    assert json.loads(body)["usage"]["total_tokens"] >= 0


CRLF = b'data: {"choices": [{"delta": {"content": "a"}}]}'


async def test_repairs_of_the_caller_are_added_to_those_of_the_upstream(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"event: message\r\nid: 1\r\n" + CRLF + b"\r\n\r\ndata: [DONE]\r\n\r\n")
        await talk.end()

    more = '[[access.keys]]\nname = "dify"\nkey = "sk-dify-9a41"\nrepairs = ["dify"]'
    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=json.dumps(STREAM).encode(), key="sk-dify-9a41")
        assert await caller.body(await caller.answer()) == CRLF + b"\n\ndata: [DONE]\n\n"
        await caller.send("POST", CHAT, JSON, body=json.dumps(STREAM).encode())
        assert (await caller.body(await caller.answer())).startswith(b"event: message\r\n")


async def test_rerank_is_translated_for_tei(run_proxy: RunProxy) -> None:
    body = {"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 1}
    ranks = b'[{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}]'
    _, answer, upstream = await relayed(
        run_proxy, ranks, options='repairs = ["tei_rerank"]', path="/v2/rerank", body=body
    )
    assert upstream.requests[0].target.endswith(b"/rerank")
    assert json.loads(upstream.requests[0].body) == {
        "query": "q", "texts": ["a", "b"], "return_text": False, "truncate": True
    }  # fmt: skip
    assert json.loads(answer) == {"results": [{"index": 1, "relevance_score": 0.9}]}


STREAMED = [chunk(**delta(content="a")), chunk(**delta("stop", content="b")), DONE]


@pytest.mark.parametrize("repairs", ["ragflow", "dify"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain; charset=utf-8", "text/html", ""])
@pytest.mark.parametrize("before", [b"", b": wait\n\n", b"\n\n"])
async def test_a_stream_is_recognised_by_its_first_bytes_whatever_its_content_type(
    run_proxy: RunProxy, repairs: str, content_type: str, before: bytes
) -> None:
    events = [before, *STREAMED] if before else STREAMED
    options = f'repairs = ["{repairs}"]'
    for pieces in (events, [bytes([byte]) for byte in b"".join(events)]):
        head, body, _ = await relayed(
            run_proxy, pieces, body=STREAM, content_type=content_type, options=options
        )
        assert head.status == 200
        text = "".join(each["choices"][0]["delta"].get("content") or "" for each in chunks_of(body))
        assert text == "ab"
        assert body.endswith(DONE)


async def test_a_mislabelled_stream_that_is_cut_ends_with_an_error_event(run_proxy: RunProxy) -> None:
    _, body, _ = await relayed(run_proxy, STREAMED[:1], body=STREAM, content_type="application/json")
    assert chunks_of(body)[-1]["error"]["code"] == "upstream_aborted"


async def test_a_stream_without_an_end_is_accepted_where_a_repair_says_so(run_proxy: RunProxy) -> None:
    event = STREAMED[0]
    accept = 'repairs = ["accept_missing_end"]'
    for tail in (b"", b": bye", event.rstrip()):
        _, body, _ = await relayed(run_proxy, [event, tail] if tail else [event], body=STREAM, options=accept)
        assert body == event + tail + (b"\n\n" if tail else b"") + DONE
    _, body, _ = await relayed(run_proxy, [event, event[:20]], body=STREAM, options=accept)
    assert chunks_of(body)[-1]["error"]["code"] == "upstream_aborted"
    _, body, _ = await relayed(run_proxy, [event], body=STREAM)
    assert chunks_of(body)[-1]["error"]["code"] == "upstream_aborted"


async def test_a_stored_completion_does_not_change(run_proxy: RunProxy) -> None:
    stored = b'{"object": "list", "data": [{"id": "c", "choices": [{"message": {"content": null}}]}]}'

    async def script(talk: Conversation) -> None:
        await talk.answer(stored, JSON)

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, options=RAGFLOW) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("GET", CHAT)
        assert await caller.body(await caller.answer()) == stored


@pytest.mark.parametrize("body", [b"<html>login</html>", b"", b"upstream exploded", b"\xff"])
async def test_a_bad_response_is_an_error_that_no_client_retries(run_proxy: RunProxy, body: bytes) -> None:
    head, told, _ = await relayed(run_proxy, body)
    error = f"Error code: {head.status} - {json.loads(told)}"
    assert head.header("x-should-retry") == ["false"]
    assert kind_of(error) not in RETRIED


@pytest.mark.parametrize("repairs", ["common", "dify"])
@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfid: 5\r\nname: x\r\n\r\nevent: y\r\n",
        b"data: a\r\n\r\nid: 3\r\n\xff\xfe",
        b"id: \xff\r\n\r\nx",
        b"id: 1\n" + b"name: a\n" * 100_000,
    ],
    ids=["bom", "invalid text later", "invalid text first", "longer than an event"],
)
async def test_a_file_that_begins_like_events_is_downloaded_as_it_is(
    run_proxy: RunProxy, repairs: str, content: bytes
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(content, "Content-Type: application/octet-stream")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, options=f'repairs = ["{repairs}"]') as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("GET", "/v1/files/f/content")
        head = await caller.answer()
        assert (head.status, head.header("content-type")) == (200, ["application/octet-stream"])
        assert await caller.body(head) == content
