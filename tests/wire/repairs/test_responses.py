"""Errors with status 200 are found, and other responses do not change."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.repairs import REPAIRS, Call, EmbeddedError, Repairs, repair_response, resolve
from proxy.wire.repairs.responses import write_strictly
from tests.wire.repairs.streams import JSON

EVERYTHING = resolve(REPAIRS)
CHAT = Shape.CHAT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n",
        b"<!DOCTYPE html><html><body>Sign in</body></html>",
        b"upstream exploded",
        b'{"choices": [',
        b'{"a":' * 100_000,
    ],
)
def test_html_nothing_and_no_json_are_invalid_responses_that_do_not_show_the_body(body: bytes) -> None:
    with pytest.raises(InvalidResponse) as raised:
        repair_response(resolve(["true_errors"]), Call(CHAT), body)
    assert str(raised.value).startswith(InvalidResponse.message)
    assert raised.value.headers == {"X-Should-Retry": "false"}
    assert "exploded" not in str(raised.value)
    assert "Sign in" not in str(raised.value)


def test_an_error_inside_a_200_becomes_one_with_its_status() -> None:
    body = b'{"error":{"message":"slow down","type":"rate_limit_error","param":null,"code":"tpm"}}'
    error = repair_response(resolve(["true_errors"]), Call(CHAT), body)
    assert error == EmbeddedError(429, "slow down", "rate_limit_error", "tpm")
    assert isinstance(error, EmbeddedError)
    assert error.envelope() == {
        "error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "tpm"}
    }


def test_the_shapes_of_vendors_need_their_own_repair() -> None:
    body = b'{"code":10012,"message":"EngineInternalError","sid":"cha000"}'
    assert repair_response(resolve(["utf8"]), Call(CHAT), body) is body
    error = repair_response(resolve(["vendor_errors"]), Call(CHAT), body)
    assert error == EmbeddedError(503, "EngineInternalError", "server_error", "10012")


def test_text_that_is_not_utf8_is_a_bad_response() -> None:
    with pytest.raises(InvalidResponse):
        repair_response(resolve(["utf8"]), Call(CHAT), b'{"choices":[{"message":{"content":"\xe4\xbd"}}]}')


@pytest.mark.parametrize(
    "body",
    [
        b' \n\n {"choices": [{"message": {"content": "x", "role": "assistant"}, "finish_reason": "stop"}], '
        b'"error": null, "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}, '
        b'"code": 0, "message": "Success"}',
        b'{"choices": [{"message": {"content": "\\ud83d"}, "finish_reason": "stop"}], "usage": '
        b'{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}',
    ],
)
def test_valid_responses_do_not_change(body: bytes) -> None:
    assert repair_response(EVERYTHING, Call(CHAT), body) is body


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"null", b'"text"', b'{"x": NaN}', b'{"choices": []}', b'{"choices": null}']
)
@pytest.mark.parametrize("shape", [CHAT, Shape.COMPLETION, Shape.EMBEDDINGS])
def test_json_without_an_answer_is_an_invalid_response(shape: Shape, body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        repair_response(resolve(["true_errors"]), Call(shape), body)


def test_a_list_of_ranks_is_left_to_the_client() -> None:
    body = b'[{"index": 0, "score": 0.5}]'
    assert repair_response(resolve(["true_errors"]), Call(Shape.RERANK), body) is body


@pytest.mark.parametrize("body", [b"", b"\xff\xfb", b'{"error": {"message": "no"}}'])
def test_responses_of_other_endpoints_do_not_change(body: bytes) -> None:
    assert repair_response(EVERYTHING, Call(None), body) is body


def test_an_error_in_the_response_to_get_is_still_an_error() -> None:
    error = repair_response(EVERYTHING, Call(Shape.MODELS), b'{"error": {"message": "no", "code": 404}}')
    assert isinstance(error, EmbeddedError)
    assert error.status == 404


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": "no"}', b"\xff"])
def test_without_repairs_nothing_is_touched(body: bytes) -> None:
    assert repair_response(Repairs(), Call(CHAT), body) is body


def test_an_error_inside_an_envelope_is_still_an_error() -> None:
    body = b'{"code": 0, "data": {"error": {"message": "no model"}, "choices": [null]}}'
    error = repair_response(EVERYTHING, Call(Shape.COMPLETION), body)
    assert isinstance(error, EmbeddedError)
    assert error.message == "no model"


@example({"data": {"error": False, "choices": [None]}})
@given(JSON)
def test_repairing_twice_is_repairing_once(value: Any) -> None:
    body = json.dumps(value).encode()
    for shape in Shape:
        with suppress(InvalidResponse):
            once = repair_response(EVERYTHING, Call(shape), body)
            if isinstance(once, bytes):
                assert repair_response(EVERYTHING, Call(shape), once) is once


@given(JSON)
def test_a_response_of_another_kind_is_forwarded_byte_for_byte(value: Any) -> None:
    body = json.dumps({"id": value, "object": "list"}).encode()
    assert repair_response(EVERYTHING, Call(Shape.MODERATION), body) is body


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(codec=None), max_size=5),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=3), values, max_size=4),
    max_leaves=8,
)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-32-be"]


@given(
    st.dictionaries(st.text(max_size=3), VALUES, max_size=4),
    st.booleans(),
    st.sampled_from(ENCODINGS),
    st.integers(0, 30),
    st.binary(max_size=3),
)
def test_no_object_that_python_reads_is_rejected_as_not_json(
    value: dict[str, object],
    ascii_only: bool,  # noqa: FBT001
    encoding: str,
    place: int,
    inserted: bytes,
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode(encoding, "surrogatepass")
    body = body[:place] + inserted + body[place:]
    try:
        is_read = isinstance(json.loads(body), dict)
    except ValueError:
        is_read = False
    if is_read:
        try:
            repair_response(resolve(["true_errors"]), Call(CHAT), body)
        except InvalidResponse as error:
            assert "not JSON" not in str(error)  # noqa: PT017  it may lack its result


def test_a_lenient_body_keeps_the_spelling_of_its_numbers() -> None:
    body = b'{"created": NaN, "x": 1.10, "y": 1e400, "choices": [{"message": {"content": "NaN"}}]}'
    assert write_strictly(body) == body.replace(b": NaN", b": null")
    utf16 = body.decode().encode("utf-16-le")
    assert write_strictly(utf16) == body.replace(b": NaN", b": null")
    assert write_strictly(b"\x00\xd8" * 2) == b"\x00\xd8" * 2
