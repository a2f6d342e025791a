"""Every repair takes linear time and bounded memory for any input."""

import contextlib
import time

import pytest

from proxy.errors import InvalidRequest, InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.event_stream import EventFramer
from proxy.wire.repairs import Repairs, StreamRepairer, read_call, repair_request, repair_response
from proxy.wire.repairs.registry import all_repairs
from tests.linear_time import KIB, MIB, assert_linear, chunks
from tests.pace import paced

ALL = Repairs(tuple(all_repairs()))
HOSTILE = 1.5
"""Seconds for a MiB of nothing but empty items or events with all repairs on, if it were repaired. It is not:
bodies of more than 10,000 items or 5,000 objects pass unrepaired, which bounds the time to about 50 ms."""
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

    assert_linear(run, ITEMS, before=before, after=after, limit=128 * KIB, memory=64, seconds_per_mib=HOSTILE)


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
def test_a_whole_answer(shape: Shape, before: bytes, after: bytes) -> None:
    call = read_call(shape, b'{"model":"a","input":["a"],"documents":["a"]}')

    def run(body: bytes) -> None:
        with contextlib.suppress(InvalidResponse):
            repair_response(ALL, call, body)

    assert_linear(run, ITEMS, before=before, after=after, limit=32 * KIB, memory=400, seconds_per_mib=HOSTILE)


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

    assert_linear(run, EVENTS, before=before, limit=32 * KIB, memory=60, seconds_per_mib=HOSTILE)


@pytest.mark.parametrize("unit", [b"{},", b"1,", b"[],", b'"",', b'{"message":{"tool_calls":[{},{}]}},'])
@pytest.mark.parametrize(
    ("shape", "before"),
    [(Shape.CHAT, b'{"choices":['), (Shape.EMBEDDINGS, b'{"data":['), (Shape.RERANK, b'{"results":[')],
)
def test_a_large_response_of_many_items_is_not_repaired(shape: Shape, before: bytes, unit: bytes) -> None:
    call = read_call(shape, b'{"model":"a"}')
    body = before + unit * (8 * MIB // len(unit)) + b"1]}"
    began = time.thread_time()
    with contextlib.suppress(InvalidResponse):
        repair_response(ALL, call, body)
    assert time.thread_time() - began < paced(0.6)
