"""Request bodies: fields that strict gateways reject are dropped, and nothing else changes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidRequest
from proxy.wire.endpoints import Shape
from proxy.wire.repairs import REPAIRS, Repairs, repair_request, resolve
from tests.wire.repairs.streams import JSON

CHAT, EMBEDDINGS = Shape.CHAT, Shape.EMBEDDINGS
ALL_BUT_REFUSAL = resolve(name for name in REPAIRS if name != "refuse_token_ids")


def repaired(name: str, shape: Shape, body: bytes) -> bytes:
    once = repair_request(resolve([name]), shape, body)
    assert repair_request(resolve([name]), shape, once) is once
    return once


def test_drop_params_is_dropped_and_numbers_do_not_change() -> None:
    body = '{"input":["你好"],"model":"bge","encoding_format":"float","drop_params":true,"x":[1.0e-05, 10]}'
    assert repaired("drop_params", EMBEDDINGS, body.encode()) == (
        '{"input":["你好"],"model":"bge","encoding_format":"float","x":[1.0e-05, 10]}'.encode()
    )


def test_drop_params_is_dropped_only_at_the_top_level() -> None:
    body = b'{"metadata": {"drop_params": true}}'
    assert repair_request(resolve(["drop_params"]), EMBEDDINGS, body) is body


@pytest.mark.parametrize("empty", ["[]", "[ ]", "null"])
def test_empty_tools_are_dropped_with_their_options(empty: str) -> None:
    body = f'{{"model":"m","tools":{empty},"tool_choice":"auto","parallel_tool_calls":true,"messages":[]}}'
    assert repaired("drop_empty_tools", CHAT, body.encode()) == b'{"model":"m","messages":[]}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"tools": [{"type": "function"}], "tool_choice": "auto"}',
        b'{"tool_choice": "none"}',
        b'{"messages": [{"content": "\\"tools\\": []"}]}',
        b'{"metadata": {"tools": []}, "tool_choice": "none"}',
    ],
)
def test_other_tools_are_kept(body: bytes) -> None:
    assert repair_request(resolve(["drop_empty_tools"]), CHAT, body) is body


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ("", '{"include_usage":true}'),
        (',"stream_options":null', '{"include_usage":true}'),
        (',"stream_options":{}', '{"include_usage":true}'),
        (',"stream_options":{"include_usage":false}', '{"include_usage":true}'),
        (',"stream_options":{"x":1.0}', '{"x":1.0,"include_usage":true}'),
    ],
)
def test_usage_is_asked_for_in_every_stream(options: str, asked: str) -> None:
    body = f'{{"model":"m","stream":true{options},"n":1.0e-05}}'
    assert json.loads(repaired("ask_usage", CHAT, body.encode())) == {
        "model": "m",
        "stream": True,
        "stream_options": json.loads(asked),
        "n": 1.0e-05,
    }


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream": true, "stream_options": {"include_usage": true}}',
        b'{"stream": false}',
        b'{"model": "m"}',
        b'{"messages": [{"stream": true}]}',
    ],
)
def test_usage_is_requested_once_and_only_for_streams(body: bytes) -> None:
    assert repair_request(resolve(["ask_usage"]), CHAT, body) is body


@pytest.mark.parametrize("index", ["null", "0"])
def test_sent_tool_calls_lose_their_index(index: str) -> None:
    body = (
        '{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[{"index":'
        + index
        + ',"id":"a","type":"function","function":{"name":"f","arguments":"{\\"index\\": 1}"}}]}]}'
    )
    assert repaired("drop_tool_call_index", CHAT, body.encode()) == (
        b'{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[{'
        b'"id":"a","type":"function","function":{"name":"f","arguments":"{\\"index\\": 1}"}}]}]}'
    )


@pytest.mark.parametrize("tokens", ["[[9906, 1917], [1]]", "[9906, 1917]", "[[]]", "[ [1]]"])
def test_token_ids_are_rejected_by_name(tokens: str) -> None:
    with pytest.raises(InvalidRequest, match="check_embedding_ctx_length=False") as refused:
        repair_request(resolve(["langchain"]), EMBEDDINGS, f'{{"input": {tokens}, "model": "m"}}'.encode())
    assert refused.value.param == "input"
    assert refused.value.status == 400


@pytest.mark.parametrize("sent", ['"text"', '["a", "b"]', "[]", '["[1]"]'])
def test_text_is_not_rejected(sent: str) -> None:
    body = f'{{"input": {sent}}}'.encode()
    assert repair_request(resolve(["langchain"]), EMBEDDINGS, body) is body


def test_another_endpoint_is_left_alone() -> None:
    body = b'{"tools": [], "input": [1], "drop_params": true}'
    assert repair_request(resolve(REPAIRS), None, body) is body


def test_without_repairs_nothing_is_touched() -> None:
    body = b'{"tools": [], "drop_params": true}'
    assert repair_request(Repairs(), CHAT, body) is body


@pytest.mark.parametrize("body", [b'{"a": tru', b"", b"\xff", b'{"x": "drop params"}', b'["drop_params"'])
def test_other_bodies_do_not_change(body: bytes) -> None:
    assert repair_request(resolve(REPAIRS), CHAT, body) is body


@given(JSON)
def test_only_the_repaired_fields_of_a_body_change(value: Any) -> None:
    body = json.dumps(value).encode()
    for endpoint in (CHAT, EMBEDDINGS):
        once = repair_request(ALL_BUT_REFUSAL, endpoint, body)
        assert repair_request(ALL_BUT_REFUSAL, endpoint, once) is once
        if once is not body:
            told = json.loads(once)
            assert all(told[key] == value[key] for key in told if key != "messages")
            assert value.keys() - told.keys() <= {
                "drop_params",
                "tools",
                "tool_choice",
                "parallel_tool_calls",
            }


def test_the_history_holds_no_nulls() -> None:
    call = '{"index":null,"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}'
    body = (
        f'{{"messages":[{{"role":"user","content":"x"}},{{"role":"assistant","content":null,"name":null,'
        f'"tool_calls":[{call}]}}],"top_p":null}}'
    )
    sound = call.replace('"index":null,', "")
    assert repaired("fill_history", CHAT, body.encode()) == (
        f'{{"messages":[{{"role":"user","content":"x"}},{{"role":"assistant","content":"",'
        f'"tool_calls":[{sound}]}}],"top_p":null}}'.encode()
    )


def test_a_history_without_nulls_stays_byte_for_byte() -> None:
    body = b'{"messages": [{"role": "user", "content": "a: null"}], "n": null}'
    assert repair_request(resolve(["fill_history"]), CHAT, body) is body


# --- token ids


def spell(ids: list[int]) -> str:
    """Decode token ids in an encoding in which every id is a character."""
    return "".join(map(chr, ids))


def decoded(sent: Any, *more: str, shape: Shape = Shape.EMBEDDINGS) -> Any:
    body = json.dumps({"model": "m", "input": sent, "n": 1.50}).encode()
    return json.loads(repair_request(resolve(["decode_token_ids", *more]), shape, body, spell))["input"]


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ([72, 105], "Hi"),
        ([[72, 105], [20320, 22909]], ["Hi", "你好"]),
        ([[72], "text"], ["H", "text"]),
        ([[72, 105]], ["Hi"]),
    ],
)
def test_token_ids_become_their_texts(sent: object, text: object) -> None:
    assert decoded(sent) == text
    assert decoded(sent, "refuse_token_ids") == text  # No token ids are left to reject.


@pytest.mark.parametrize(
    "sent", ["text", ["a", "b"], [], [[]], [1.5, 2], [[1], [True]], [-1, 2], {"a": 1}, None]
)
def test_other_inputs_than_token_ids_do_not_change(sent: object) -> None:
    if sent == [[1], [True]]:
        assert decoded(sent) == ["\x01", [True]]
    else:
        assert decoded(sent) == sent


def test_only_embeddings_are_decoded_and_only_if_enabled() -> None:
    body = b'{"input":[[72]],"n":1.50}'
    assert repair_request(resolve(["decode_token_ids"]), Shape.CHAT, body, spell) is body
    assert repair_request(resolve(["ragflow"]), Shape.EMBEDDINGS, body, spell) is body
    assert (
        repair_request(resolve(["decode_token_ids"]), Shape.EMBEDDINGS, body, spell)
        == b'{"input":["H"],"n":1.50}'
    )


def test_without_an_encoding_token_ids_are_rejected() -> None:
    with pytest.raises(InvalidRequest, match="check_embedding_ctx_length"):
        repair_request(resolve(["decode_token_ids"]), Shape.EMBEDDINGS, b'{"input":[1,2]}')


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_no_text_is_lost_or_moved(texts: list[str]) -> None:
    assert decoded([[ord(letter) for letter in text] for text in texts]) == texts
