"""What makes RAGFlow stumble, row by row, and how `repairs = ["ragflow"]` cures it; without, it does stumble.

Elsewhere: `tests/wire/repairs/` tests each repair alone, `test_repairs.py` each where it meets the wire, and

- a stream that is cut: `test_faults.py::test_a_stream_that_breaks_gives_its_events_and_one_error_event`
- it ends without saying so: `test_faults.py::test_a_chat_stream_without_an_end_marker_is_an_error`
- an error event of the upstream's: `test_faults.py::test_an_error_of_the_upstream_is_forwarded_once`
- rerank without `results`, of TEI: `test_repairs.py::test_rerank_is_translated_for_tei`

Rerank up to v0.20 is zero whatever comes: nothing that a proxy could cure.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import RunProxy
from tests.integration import ragflow
from tests.integration.ragflow import (
    DONE,
    EMBEDDINGS,
    HI,
    JSON,
    RETRIED,
    USAGE,
    ErrorShown,
    Json,
    chunk,
    kind_of,
    message,
    ragflow_before,
    streamed,
    whole,
)
from tests.raw_upstream import Conversation, Script

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
HALVES = [
    {"id": "call_1", "function": {"name": "f", "arguments": '{"a"'}},
    {"function": {"arguments": ":1}"}},
    {"id": "call_2", "function": {"name": "g", "arguments": "{}"}},
]
VECTOR = {"object": "embedding", "embedding": [0.5]}
ANSWER = {"object": "list", "model": "m", "usage": USAGE}
TWO = [{**VECTOR, "index": 0}, {**VECTOR, "index": 1}]

Reader = Callable[[bytes], Any]

STREAMS: list[tuple[str, Reader, list[object], Any]] = [
    (
        "an unasked usage chunk, vision",
        ragflow.vision_stream,
        [chunk(content="Hi"), chunk("stop"), {**chunk(), "choices": [], "usage": USAGE}, DONE],
        "Hi",
    ),
    (
        "usage on every chunk",
        ragflow.chat_stream,
        [*(chunk(content=word, usage=USAGE) for word in "abcd"), chunk("stop", usage=USAGE), DONE],
        ("abcd", 12),
    ),
    (
        "a first chunk without choices, as Azure's, vision",
        ragflow.vision_stream,
        [{"id": "", "choices": [], "prompt_filter_results": []}, chunk(content="Hi"), chunk("stop"), DONE],
        "Hi",
    ),
    (
        "a null delta",
        ragflow.chat_stream,
        [{"choices": [{"index": 0, "delta": None}]}, chunk(content="Hi"), chunk("stop"), DONE],
        ("Hi", 0),
    ),
    (
        "a null delta, tools",
        ragflow.tool_stream,
        [
            {"choices": [{"index": 0, "delta": None}]},
            chunk(tool_calls=[{**CALL, "index": 0}]),
            chunk("stop"),
            DONE,
        ],
        {0: "{}"},
    ),
    (
        "text and its end in one chunk, vision",
        ragflow.vision_stream,
        [chunk(content="Hi"), chunk("stop", content=" there"), DONE],
        "Hi there",
    ),
    (
        "tool calls without an index",
        ragflow.tool_stream,
        [*(chunk(tool_calls=[half]) for half in HALVES), chunk("tool_calls"), DONE],
        {0: '{"a":1}', 1: "{}"},
    ),
]

WHOLE: list[tuple[str, Reader, Json, Any]] = [
    ("no usage, vision", ragflow.vision, message(None, content="Hi"), ("Hi", 0)),
    ("null content, tools", ragflow.tools, message(content=None), {}),
    ("null content, vision", ragflow.vision, message(content=None), ("", 12)),
    (
        "no index in a whole answer, up to v0.24",
        ragflow.tools,
        message(content=None, tool_calls=[CALL]),
        {0: "{}"},
    ),
]

EMBEDDED: list[tuple[str, Json, Any]] = [
    ("reversed", {**ANSWER, "data": [*reversed(TWO)]}, ([[0.5], [0.5]], 12)),
    ("no index", {**ANSWER, "data": [VECTOR, VECTOR]}, ([[0.5], [0.5]], 12)),
    ("a null total", {**ANSWER, "data": TWO, "usage": {"total_tokens": None}}, ([[0.5], [0.5]], 0)),
    ("null usage", {**ANSWER, "data": TWO, "usage": None}, ([[0.5], [0.5]], 0)),
]


async def read(
    run_proxy: RunProxy, script: Script, reader: Reader, body: Json, options: str, path: str = ragflow.CHAT
) -> Any:
    """Return what RAGFlow reads in the response."""
    async with ragflow_before(run_proxy, script, options) as place:
        head, answer = await place.ask(body, path)
    assert head.status == 200
    return reader(answer)


@pytest.mark.parametrize(("oddity", "reader", "events", "expected"), STREAMS, ids=[row[0] for row in STREAMS])
async def test_a_stream_that_ragflow_cannot_read_is_repaired(
    run_proxy: RunProxy, oddity: str, reader: Reader, events: list[object], expected: object
) -> None:
    assert await read(run_proxy, streamed(*events), reader, HI, ragflow.RAGFLOW) == expected, oddity
    try:
        uncured = await read(run_proxy, streamed(*events), reader, HI, "")
    except (AttributeError, IndexError, KeyError, TypeError):
        return
    assert uncured != expected


@pytest.mark.parametrize(("oddity", "reader", "answer", "expected"), WHOLE, ids=[row[0] for row in WHOLE])
async def test_a_response_that_ragflow_cannot_read_is_repaired(
    run_proxy: RunProxy, oddity: str, reader: Reader, answer: Json, expected: object
) -> None:
    asked = {**HI, "stream": False}
    assert await read(run_proxy, whole(answer), reader, asked, ragflow.RAGFLOW) == expected, oddity
    with pytest.raises((AssertionError, AttributeError, KeyError, TypeError)):
        await read(run_proxy, whole(answer), reader, asked, "")


@pytest.mark.parametrize(("oddity", "answer", "expected"), EMBEDDED, ids=[row[0] for row in EMBEDDED])
async def test_embeddings_that_ragflow_cannot_read_are_repaired(
    run_proxy: RunProxy, oddity: str, answer: Json, expected: object
) -> None:
    body = {"model": "m", "input": ["a", "b"], "encoding_format": "float"}
    told = await read(run_proxy, whole(answer), ragflow.vectors, body, ragflow.RAGFLOW, EMBEDDINGS)
    assert told == expected, oddity
    with pytest.raises((AssertionError, KeyError, TypeError)):
        await read(run_proxy, whole(answer), ragflow.vectors, body, "", EMBEDDINGS)


@pytest.mark.parametrize(
    ("path", "odd", "taken"),
    [
        (EMBEDDINGS, {"input": ["a"], "drop_params": True}, {"input": ["a"]}),
        (ragflow.CHAT, {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "n": 1}, {"n": 1}),
    ],
    ids=["drop_params", "empty tools"],
)
async def test_fields_that_a_strict_upstream_rejects_are_removed(
    run_proxy: RunProxy, path: str, odd: Json, taken: Json
) -> None:
    async def strict(talk: Conversation) -> None:
        refused = b"drop_params" in talk.request.body or b'"tools"' in talk.request.body
        answer = json.dumps({"data": [{**VECTOR, "index": 0}], **message(content="Hi")}).encode()
        await talk.answer(answer, JSON, status="400 Bad Request" if refused else "200 OK")

    for options, status in ((ragflow.RAGFLOW, 200), ("", 400)):
        async with ragflow_before(run_proxy, strict, options) as place:
            head, _ = await place.ask({"model": "m", **odd}, path)
            assert head.status == status
            assert place.sent_up == ({"model": "m", **taken} if options else {"model": "m", **odd})


@pytest.mark.parametrize("body", [HI, {**HI, "stream": False}], ids=["stream", "whole"])
@pytest.mark.parametrize(
    ("answer", "kind", "status"),
    [
        (b'{"error": {"message": "no such deployment", "code": 404}}', "application/json", 404),
        (b"<html>please log in</html>", "text/html", 502),
        (b"", "application/json", 502),
    ],
    ids=["error", "HTML", "nothing"],
)
async def test_a_200_without_an_answer_gets_an_error_status(
    run_proxy: RunProxy, body: Json, answer: bytes, kind: str, status: int
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(answer, f"Content-Type: {kind}")

    async with ragflow_before(run_proxy, script) as place:
        head, told = await place.ask(body)
    assert head.status == status
    assert b"log in" not in told


async def test_a_cut_stream_gives_its_text_and_an_error_that_is_not_retried(
    run_proxy: RunProxy,
) -> None:
    async def script(talk: Conversation) -> None:
        await streamed_part(talk)
        talk.reset()

    async with ragflow_before(run_proxy, script) as place:
        _, body = await place.ask(HI)
    with pytest.raises(ErrorShown) as shown:
        ragflow.chat_stream(body)
    assert kind_of(str(shown.value)) not in RETRIED  # otherwise the user would read the text twice
    assert b"Hi" in body
    assert DONE not in body


async def streamed_part(talk: Conversation) -> None:
    """Stream some words without an end."""
    await talk.start_stream()
    await talk.chunk(b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n')


@pytest.mark.parametrize("last", [b'data: {"code": 10013, "message": "audit"}', b"data: \xe4\xbd"])
async def test_an_error_without_an_end_is_sent_once(run_proxy: RunProxy, last: bytes) -> None:
    async with ragflow_before(run_proxy, streamed(chunk(content="Hi"), last)) as place:
        _, body = await place.ask(HI)
    assert body.count(b'"error"') == 1
