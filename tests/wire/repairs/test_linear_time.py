"""Every repair takes linear time and bounded memory for any input."""

import contextlib

import pytest

from proxy.errors import InvalidRequest, InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.event_stream import EventFramer
from proxy.wire.repairs import (
    REPAIRS,
    StreamRepairer,
    read_call,
    repair_request,
    repair_response,
    resolve,
)
from tests.linear_time import KIB, MIB, assert_linear, best_seconds, chunks
from tests.pace import paced

ALL = resolve(REPAIRS)
EVENTS_SECONDS = 1.5
"""How long a MiB of tiny events may take. It arrives in many chunks, and each is repaired on its own."""
ITEMS = (
    *(b" ", b"a", b"0", b'"', b'"",', b'"a",', b"\\n", b"[", b"[],", b"[{", b"{", b"{},", b'{"a":', b"1,"),
    *(b"null,", b"<", b"\xff", b"[1],", b"[1,2,3],", b'{"index":0},', b'{"role":"user","content":"a"},'),
    *(b'{"tool_calls":[{"index":0}]},', b'{"embedding":[1]},', b'{"index":0,"embedding":[0.1,0.2]},'),
    *(b'{"delta":{"content":"a"}},', b'{"message":{}},', b'{"index":1,"relevance_score":0.5},'),
    *(b'{"text":"a"},', b'{"error":{"message":"a"}},'),
)
EVENTS = (
    *(b"\n", b"\r", b"\r\n", b"a", b"data: x\n", b"data:\n\n", b": c\n\n", b'data: {"a":1}\n\n'),
    *(b"event: a\n", b"data: [DONE]\n\n", b"[", b'{"a":', b"\xff"),
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',
    b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"a"}}]}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"id":"x"}]}}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n',
)


@pytest.mark.parametrize(
    ("shape", "before", "after"),
    [
        (Shape.CHAT, b'{"stream":true,"drop_params":1,"tools":[],"index":0,"messages":[', b"1]}"),
        (Shape.CHAT, b'{"tools":[', b'1],"messages":[]}'),
        (Shape.CHAT, b'{"index":0,"messages":[{"tool_calls":[', b"1]}]}"),
        (Shape.EMBEDDINGS, b'{"input":[', b"1]}"),
        (Shape.RERANK, b'{"query":"a","documents":[', b"1]}"),
    ],
)
def test_a_request(shape: Shape, before: bytes, after: bytes) -> None:
    def run(body: bytes) -> None:
        read_call(shape, body)
        with contextlib.suppress(InvalidRequest):
            repair_request(ALL, shape, body)

    assert_linear(run, ITEMS, before=before, after=after, limit=128 * KIB, memory=64)


@pytest.mark.parametrize(
    ("shape", "before", "after"),
    [
        (Shape.CHAT, b"", b""),
        (Shape.CHAT, b'{"choices":[', b'{"message":{"content":"a"}}]}'),
        (Shape.CHAT, b'{"choices":[{"message":{"content":"', b'"}}]}'),
        (Shape.CHAT, b'{"choices":[{"message":{"tool_calls":[', b"1]}}]}"),
        (Shape.CHAT, b'{"error":{"message":"', b'"}}'),
        (Shape.EMBEDDINGS, b'{"data":[', b'{"embedding":[1]}]}'),
        (Shape.EMBEDDINGS, b'{"data":[{"embedding":[', b"1]}]}"),
        (Shape.EMBEDDINGS, b'{"data":[{"embedding":"', b'"}]}'),
        (Shape.RERANK, b'{"results":[', b"1]}"),
        (Shape.SPEECH, b"", b""),
    ],
)
def test_a_complete_response(shape: Shape, before: bytes, after: bytes) -> None:
    call = read_call(shape, b'{"model":"a","input":["a"],"documents":["a"]}')

    def run(body: bytes) -> None:
        with contextlib.suppress(InvalidResponse):
            repair_response(ALL, call, body)

    assert_linear(run, ITEMS, before=before, after=after, limit=32 * KIB, memory=400)


@pytest.mark.parametrize("size", [200, 16 * KIB])
@pytest.mark.parametrize("before", [b"", b'data: {"choices":[{"delta":{"content":"'])
def test_a_stream(before: bytes, size: int) -> None:
    call = read_call(Shape.CHAT, b'{"model":"a","stream":true}')

    def run(body: bytes) -> None:
        framer, repairer = EventFramer(MIB), StreamRepairer(ALL, call)
        with contextlib.suppress(InvalidResponse):
            repairer.first_error(body[:size])
        for chunk in chunks(body, size):
            repairer.feed(framer.feed(chunk))
        repairer.feed(framer.flush())
        repairer.finish()

    assert_linear(run, EVENTS, before=before, limit=32 * KIB, memory=60, seconds_per_mib=EVENTS_SECONDS)


REQUEST = b'{"model":"a","input":["a"],"documents":["a"]}'
ALLOWED_SECONDS = paced(0.1)
"""Twice as long, because other programs share the caches of the processor."""
WHOLE = (
    (Shape.CHAT, b'{"choices":['),
    (Shape.CHAT, b'{"choices":[{"message":{"tool_calls":['),
    (Shape.EMBEDDINGS, b'{"data":['),
    (Shape.EMBEDDINGS, b'{"data":[{"embedding":['),
    (Shape.RERANK, b'{"results":['),
    (Shape.RERANK, b"["),
)


@pytest.mark.parametrize(("shape", "before"), WHOLE)
def test_a_response_of_one_mib_takes_50_ms(shape: Shape, before: bytes) -> None:
    call, padding = read_call(shape, REQUEST), b"a" * 180

    def repair(body: bytes) -> None:
        with contextlib.suppress(InvalidResponse):
            repair_response(ALL, call, body)

    texts = (b'{"message":null,"text":"%s"},', b'{"embedding":[1],"text":"%s"},', b'["1","1","%s"],')
    for unit in (*ITEMS, b"1," * 50, *(text % padding for text in texts)):
        body = (before + unit * (MIB // len(unit)) + b"1]}").removesuffix(b"}" if before == b"[" else b"")
        assert best_seconds(repair, body, ALLOWED_SECONDS) <= ALLOWED_SECONDS, unit


@pytest.mark.parametrize(("shape", "before"), WHOLE)
@pytest.mark.parametrize("unit", [b"{},", b"1,", b"[],", b'"",'])
def test_a_response_of_too_many_items_is_relayed_unrepaired(shape: Shape, before: bytes, unit: bytes) -> None:
    end = {b"[": b"]", b"{": b"}"}
    after = b"1" + b"".join(end[bytes([byte])] for byte in reversed(before) if bytes([byte]) in end)
    body = before + unit * (MIB // len(unit)) + after
    assert repair_response(ALL, read_call(shape, REQUEST), body) is body


def test_an_event_of_too_many_choices_is_relayed_unrepaired() -> None:
    event = b'data: {"choices":[' + b"1," * 20_000 + b"1]}\n\n"
    repairer = StreamRepairer(ALL, read_call(Shape.CHAT, b'{"model":"a","stream":true}'))
    assert repairer.first_error(event) is None
    assert repairer.feed(event) is event
    assert repairer.feed(b"data: [DONE]\n\n") == b"data: [DONE]\n\n"
