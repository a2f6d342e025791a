"""The properties of a request that repairs of its response depend on."""

import pytest

from proxy.wire.endpoints import Shape
from proxy.wire.repairs.call import Call, read_call


@pytest.mark.parametrize("body", [b"", b"[]", b"no JSON", b"\xff", b'{"a": ' * 100_000])
def test_of_a_body_that_is_not_an_object_nothing_is_known(body: bytes) -> None:
    assert read_call(Shape.CHAT, body) == Call(Shape.CHAT, streams=None)


@pytest.mark.parametrize("value", [b"1e400", b"[1,{}]", b"9" * 5_000, b'"%b"' % (b"x" * 5_000)])
@pytest.mark.parametrize(
    "name", [b"model", b"top_n", b"encoding_format", b"stream_format", b"stream_options"]
)
def test_an_odd_value_hides_no_other(name: bytes, value: bytes) -> None:
    body = b'{"%b":%b,"stream":true,"tools":[1]}' % (name, value)
    assert read_call(Shape.CHAT, body) == Call(Shape.CHAT, streams=True, tools=True)


@pytest.mark.parametrize(
    ("written", "streams"),
    [(b"true", True), (b"false", False), (b"null", False), (b'"true"', None), (b"1", None)],
)
def test_only_a_boolean_turns_streaming_on_or_off(written: bytes, *, streams: bool | None) -> None:
    assert read_call(Shape.CHAT, b'{"stream": ' + written + b"}").streams is streams


def test_speech_streams_by_its_own_member() -> None:
    assert read_call(Shape.SPEECH, b'{"stream": true}').streams is False
    assert read_call(Shape.SPEECH, b'{"stream_format": "sse"}').streams is True


def test_options_of_a_chat() -> None:
    body = b'{"model": "m", "stream_options": {"include_usage": true}, "tools": [{"type": "function"}]}'
    assert read_call(Shape.CHAT, body) == Call(Shape.CHAT, usage_requested=True, model="m", tools=True)
    body = b'{"model": 1, "stream_options": {"include_usage": "true"}, "tools": [ ]}'
    assert read_call(Shape.CHAT, body) == Call(Shape.CHAT)


@pytest.mark.parametrize(
    ("written", "inputs"),
    [
        (b'"text"', 1), (b'["a", "b"]', 2), (b"[1, 2, 3]", 1), (b"[[1], [2]]", 2), (b"[]", None),
        (b"7", None), (b"[" + b"1," * 20_000 + b"1]", None),
        (b'[{"text": "a"}, {"image": "b"}]', None), (b'["a", {"image": "b"}]', None), (b"[null]", None),
        (b'{"texts": ["a", "b"]}', None), (b'["a", ["b"]]', 2), (b"[-1, 2]", 1),
    ],
)  # fmt: skip
def test_texts_to_embed_are_counted_in_each_of_their_forms(written: bytes, inputs: int | None) -> None:
    assert read_call(Shape.EMBEDDINGS, b'{"input": ' + written + b"}").inputs == inputs


def test_documents_to_rerank_are_counted() -> None:
    call = read_call(Shape.RERANK, b'{"documents": ["a", {"text": "b"}], "top_n": 1}')
    assert (call.documents, call.top_n) == (2, 1)
