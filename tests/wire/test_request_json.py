"""JSON bodies: two fields are read, unsound bodies are refused by name."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidRequest
from proxy.wire.request_json import RequestFields, read_fields, replace_model

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_model_and_stream_are_read() -> None:
    assert read_fields(b'{"stream": true, "x": [1], "model": "m"}') == RequestFields("m", stream=True)


def test_fields_of_another_type_are_the_upstreams_to_refuse() -> None:
    assert read_fields(b'{"model": 7, "stream": "yes"}') == RequestFields(7, stream="yes")


@given(JSON)
def test_every_sound_body_passes(value: Any) -> None:
    body = json.dumps(value, ensure_ascii=True)
    if not any(0xD800 <= ord(char) <= 0xDFFF for char in str(value)):
        read_fields(body.encode())


@given(st.binary(max_size=60))
def test_any_bytes_pass_or_are_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        read_fields(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a": "\xff"}', "not valid UTF-8 (byte 7)"),
        (b"", "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b"[NaN]", "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b'["\\udc00x"]', "not valid JSON"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 200_000, "nested too deeply"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
    ],
)
def test_unsound_bodies_are_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words.replace("(", r"\(").replace(")", r"\)")):
        read_fields(body)


def test_an_escaped_backslash_is_no_surrogate() -> None:
    read_fields(b'{"a": "\\\\ud800", "b": "\\ud83d\\ude00"}')


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model": "a"}', b'{"model": "new"}'),
        (b'{ "z":1.10,"model" : "a\\"b" ,"b":[]}\n', b'{ "z":1.10,"model" : "new" ,"b":[]}\n'),
        (b'{"m\\u006fdel":"a"}', b'{"m\\u006fdel":"new"}'),
        (b'{"model":"a","model":"b"}', b'{"model":"new","model":"new"}'),
        (b'{"messages":[{"model":"a"}],"x":{"model":"b"},"model":"c"}',
         b'{"messages":[{"model":"a"}],"x":{"model":"b"},"model":"new"}'),
        (b'{"x":"model","y":"a"}', b'{"x":"model","y":"a"}'),
        (b'{"x":"model:","model":"a"}', b'{"x":"model:","model":"new"}'),
        (b'{"model":5,"stop":"model"}', b'{"model":5,"stop":"model"}'),
        (b'{"model":null}', b'{"model":null}'),
        (b'{"model":["a"]}', b'{"model":["a"]}'),
        (b"[]", b"[]"),
        (b'["model","a"]', b'["model","a"]'),
        (b"", b""),
    ],
)  # fmt: skip
def test_a_model_gets_its_other_name_and_nothing_else_changes(body: bytes, expected: bytes) -> None:
    assert replace_model(body, "new") == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("model"), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text() | st.just("model"), json_values, max_size=6), st.text())
def test_of_any_object_the_outermost_model_alone_is_renamed(body: dict[str, object], name: str) -> None:
    renamed = json.loads(replace_model(json.dumps(body).encode(), name))
    expected = {**body, "model": name} if isinstance(body.get("model"), str) else body
    assert renamed == expected
