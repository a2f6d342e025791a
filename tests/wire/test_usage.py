"""Usage: the last object of that name, wherever the answer was cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.usage import Usage, read_usage

OPENAI = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (json.dumps({"choices": [], "usage": OPENAI}).encode(), Usage(9, 12)),
        (b'data: {"usage":' + json.dumps(OPENAI).encode() + b"}\n\ndata: [DONE]\n\n", Usage(9, 12)),
        (b'{"usage" :\n {"input_tokens": 3, "output_tokens": 4}}', Usage(3, 4)),
        (b'0.1,0.2]}],"model":"e","usage":{"prompt_tokens":5,"total_tokens":5}}', Usage(5, 0)),
        (b'{"usage":{"prompt_tokens":1}}\n\ndata: {"usage":{"prompt_tokens":2}}', Usage(2, 0)),
        (b'{"usage":{"prompt_tokens":1}}\n\ndata: {"usage":null}', Usage(1, 0)),
        (b'{"usage":null}', None),
        (b'{"usage":{}}', None),
        (b'{"usage":{"prompt_tokens":true,"completion_tokens":-1}}', None),
        (b'{"usage":{"prompt_tokens":1', None),
        (b'{"content":"the \\"usage\\": {\\"prompt_tokens\\": 7}"}', None),
        (b'{"usage":[1]}', None),
        (b"\xff\xfe", None),
        (b"", None),
    ],
)  # fmt: skip
def test_the_last_usage_is_read(tail: bytes, expected: Usage | None) -> None:
    assert read_usage(tail) == expected


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_no_error(tail: bytes) -> None:
    read_usage(tail)


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.binary(max_size=60), st.binary(max_size=60))
def test_it_is_found_between_anything(prompt: int, completion: int, before: bytes, after: bytes) -> None:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    tail = before + b'{"usage":' + json.dumps(usage).encode() + b"}" + after.replace(b"usage", b"")
    assert read_usage(tail) == Usage(prompt, completion)
