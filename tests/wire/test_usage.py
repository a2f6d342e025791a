"""Usage: reported usage is read even if the beginning of the response is missing, and otherwise estimated."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.wire.endpoints import Charge
from proxy.wire.usage import (
    MEDIA_TOKENS,
    TAIL_BYTES,
    Usage,
    estimate_usage,
    read_event_usage,
    read_stream_usage,
    read_usage,
    read_usage_in_tail,
)
from tests.pace import paced

OPENAI = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["usage", "response", 'a"b', "\\", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (json.dumps({"choices": [], "usage": OPENAI}).encode(), Usage(9, 12)),
        (json.dumps({"usage": OPENAI, "prompt_logprobs": [{"1": {"logprob": -1}}]}).encode(), Usage(9, 12)),
        (b'{"usage" :\n {"input_tokens": 3, "output_tokens": 4}}\n', Usage(3, 4)),
        (b'{"model":"e","usage":{"prompt_tokens":5,"total_tokens":5}}', Usage(5, 0)),
        (b'{"results":[],"usage":{"total_tokens":7}}', Usage(7, 0)),
        (b'{"usage":null}', None),
        (b'{"usage":{}}', None),
        (b'{"usage":[1]}', None),
        (b'{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}', None),
        (b'{"usage":{"prompt_tokens":true,"completion_tokens":-1}}', None),
        (b'{"usage":{"prompt_tokens":1', None),
        (b'{"content":"the \\"usage\\": {\\"prompt_tokens\\": 7}"}', None),
        (b'{"tools":[{"usage":{"prompt_tokens":1}}]}', None),
        (b'{"metadata":{"usage":{"prompt_tokens":1}}}', None),
        (b'[{"usage":{"prompt_tokens":1}}]', None),
        (b"\xff\xfe", None),
        (b'{"usage":{"\xff":1}}', None),
        (b'{"usage":{"prompt_tokens":"\xff"}}', None),
        (b"", None),
    ],
)
@pytest.mark.parametrize("read", [read_usage, read_usage_in_tail])
def test_the_usage_of_the_outermost_object_is_read(
    read: Callable[[bytes], Usage | None], body: bytes, expected: Usage | None
) -> None:
    assert read(body) == expected


@given(JSON, JSON, st.integers(1, 1 << 40))
def test_nothing_else_in_a_response_counts_as_usage(before: Any, after: Any, prompt: int) -> None:
    answer = {"before": before, "usage": {"prompt_tokens": prompt}, "after": after}
    for indent in (None, 1):
        body = json.dumps(answer, indent=indent).encode()
        assert read_usage(body) == Usage(prompt, 0)
        if len(body) <= TAIL_BYTES:
            assert read_usage_in_tail(body) == Usage(prompt, 0)
    body = json.dumps({"before": before, "after": after}).encode()
    assert read_usage(body) is read_usage_in_tail(body) is None


@given(JSON, st.integers(1, 1 << 40), st.integers(0, 400))
def test_usage_is_found_in_the_tail_of_a_response(before: Any, prompt: int, cut: int) -> None:
    body = json.dumps({"data": before, "usage": {"prompt_tokens": prompt}}).encode()
    usage_at = body.rindex(b'"usage"')
    assert read_usage_in_tail(body[min(cut, usage_at) :]) == Usage(prompt, 0)


@given(st.binary(max_size=400))
@example(b'{"usage":{"\xff":1}}')
@example(b'data: {"usage":{"\xff":1}}')
@example(b'data: {"response":{"usage":{"\xff":1}}}')
def test_arbitrary_bytes_are_no_error(body: bytes) -> None:
    for read in (read_usage, read_usage_in_tail, read_stream_usage, read_event_usage):
        read(body)


COMPLETED = {"type": "response.completed", "response": {"tools": [{"usage": OPENAI}], "usage": OPENAI}}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (b'data: {"usage":{"prompt_tokens":1}}\n\ndata: {"usage":{"prompt_tokens":2}}\n\n', Usage(2, 0)),
        (b'data: {"usage":{"prompt_tokens":1}}\n\ndata: {"usage":null}\n\ndata: [DONE]\n\n', Usage(1, 0)),
        (b'data:{"usage":{"prompt_tokens":3}}\r\n\r\ndata: [DONE]\r\n\r\n', Usage(3, 0)),
        (b"event: response.completed\ndata: " + json.dumps(COMPLETED).encode() + b"\n\n", Usage(9, 12)),
        (b'data: {"response":null,"usage":{"prompt_tokens":4}}\n\n', Usage(4, 0)),
        (b'data: {"response":{"tools":[{"usage":{"input_tokens":1}}]}}\n\n', None),
        (b'data: {"choices":[{"delta":{"content":"\\"usage\\":{\\"prompt_tokens\\":1}"}}]}\n\n', None),
        (b'data: {"choices":[{"usage":{"prompt_tokens":1}}]}\n\ndata: [DONE]\n\n', Usage(1, 0)),
        (b'data: {"choices":[{"usage":{"prompt_tokens":1}}],"usage":{"prompt_tokens":2}}\n\n', Usage(2, 0)),
        (b'data: {"choices":[{"delta":{"usage":{"prompt_tokens":1}}}]}\n\n', None),
        (b'data: {"choices":[1],"usage":{"prompt_tokens":2}}\n\n', Usage(2, 0)),
        (b'data: {"choices":["usage"],"response":1,"usage":null}\n\n', None),
        (b': "usage": {"prompt_tokens": 1}\n\n', None),
        (b'data: {"usage":{"prompt_tokens":1', None),
        (b"", None),
    ],
)
def test_the_last_usage_of_a_stream_is_read(events: bytes, expected: Usage | None) -> None:
    assert read_stream_usage(events) == expected
    assert read_usage_in_tail(events) == expected  # A stream without the Content-Type of events.


@pytest.mark.parametrize(
    "unit", [b'"usage":', b'{"usage":', b'{"usage":{"a":1},', b'\\"', b'"', b"\\", b"[", b"}", b",", b"\r"]
)
@pytest.mark.parametrize("read", [read_usage, read_usage_in_tail, read_stream_usage])
def test_searching_takes_linear_time_for_any_response(
    read: Callable[[bytes], Usage | None], unit: bytes
) -> None:
    body = b"data: " + unit * ((1 << 20) // len(unit))
    since = time.process_time()
    read(body)
    read(body + b"}")
    assert time.process_time() - since < paced(1)


@pytest.mark.parametrize("charge", Charge)
def test_an_estimate_is_zero_only_if_nothing_is_charged(charge: Charge) -> None:
    for prompt, answer, events in ((0, 0, 0), (0, 100, 0), (400, 0, 0), (400, 100_000, 7)):
        usage = estimate_usage(charge, prompt, answer, events)
        assert (sum(usage) == 0) is (charge is Charge.NOTHING)


def test_an_estimate_grows_with_request_and_response() -> None:
    assert estimate_usage(Charge.TEXT, 4000, 0, 0) == (1000, 0)
    assert estimate_usage(Charge.TEXT, 4000, 300, 0) == (1000, 13)
    assert estimate_usage(Charge.TEXT, 4000, 50 * 220, 50) == (1000, 50)  # About one token per chunk.
    assert estimate_usage(Charge.TEXT, 4000, 20_250, 1) == (1000, 5001)  # Everything in one chunk.
    assert estimate_usage(Charge.PROMPT, 4000, 1 << 20, 0) == (1000, 0)
    assert estimate_usage(Charge.MEDIA, 400, 1 << 20, 0) == (100, MEDIA_TOKENS)
