"""Request bodies: which are valid, and which field the error names otherwise."""

import pytest

from proxy.gateway.completions import ChatRequest, CompletionRequest
from proxy.gateway.http import GatewayError, parse_body
from proxy.gateway.models import EmbeddingRequest


def test_the_defaults_are_the_articles() -> None:
    asked = parse_body(b'{"messages": []}', ChatRequest)
    assert asked.model == "mock-gpt-model"
    assert asked.max_tokens == 512
    assert asked.temperature == 0.1
    assert asked.stream is False
    assert asked.include_usage is False


def test_content_may_be_text_parts_or_nothing() -> None:
    body = """{"unknown": {"field": 1}, "messages": [
        {"role": "user", "content": "plain", "name": "bob"},
        {"role": "user", "content": [
            {"type": "text", "text": "two "},
            {"type": "image_url", "image_url": {"url": "x"}},
            {"type": "text", "text": "parts"}
        ]},
        {"role": "assistant", "content": null, "tool_calls": []},
        {"role": "assistant"}
    ]}"""
    asked = parse_body(body.encode(), ChatRequest)
    assert [turn.text for turn in asked.turns] == ["plain", "two parts", "", ""]


def test_a_prompt_may_be_one_or_several() -> None:
    assert [turn.text for turn in parse_body(b'{"prompt": "a"}', CompletionRequest).turns] == ["a"]
    assert [turn.text for turn in parse_body(b'{"prompt": ["a", "b"]}', CompletionRequest).turns] == [
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{}", "messages"),
        (b"[]", None),
        (b'{"messages": "hi"}', "messages"),
        (b'{"messages": [{"role": "user", "content": 1}]}', "messages[0].content"),
        (b'{"messages": [], "max_tokens": 0}', "max_tokens"),
        (b'{"messages": [], "stream": "yes"}', "stream"),
    ],
)
def test_a_wrong_shape_names_its_field(body: bytes, param: str | None) -> None:
    with pytest.raises(GatewayError) as caught:
        parse_body(body, ChatRequest)
    assert caught.value.status == 400
    assert caught.value.param == param


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"NaN", b'{"messages": [], "model": "\xff"}', b'{"model": "\\ud800"}', b'{"x":' * 10_000],
)
def test_invalid_json_is_400(body: bytes) -> None:
    with pytest.raises(GatewayError, match="JSON") as caught:
        parse_body(body, ChatRequest)
    assert caught.value.status == 400


@pytest.mark.parametrize("field", ['"dimensions": 0', '"dimensions": 4097', '"encoding_format": "int8"'])
def test_embedding_options_are_checked(field: str) -> None:
    with pytest.raises(GatewayError):
        parse_body(f'{{"input": "x", {field}}}'.encode(), EmbeddingRequest)
