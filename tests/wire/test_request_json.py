"""JSON bodies: two fields are read, and invalid bodies are rejected."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import InvalidRequest
from proxy.wire.request_json import (
    _NAMES,
    _USUAL_NAMES,
    MEMBERS_MAX,
    MODEL_CHARACTERS_MAX,
    NAME_CHARACTERS_MAX,
    RequestFields,
    read_fields,
    replace_model,
    word_for_model,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_model_and_stream_are_read() -> None:
    fields = RequestFields("m", stream=True, streams=True, spellings=("stream", "model"))
    assert read_fields(b'{"stream": true, "x": [1], "model": "m"}') == fields


def test_fields_of_another_type_are_left_to_the_upstream() -> None:
    fields = RequestFields(streams=True, spellings=("model", "stream"))
    assert read_fields(b'{"model": 7, "stream": "yes"}') == fields


@pytest.mark.parametrize(
    ("stream", "may_stream"),
    [
        (b"true", True),
        (b"false", False),
        (b"null", False),
        (b"1", True),
        (b'"true"', True),
        (b"[]", True),
        (b"{}", True),
        (b"1" * 100, True),
    ],
)
def test_every_value_that_a_server_may_read_as_true_counts_as_true(
    stream: bytes, *, may_stream: bool
) -> None:
    fields = read_fields(b'{"stream": %b, "background": %b}' % (stream, stream))
    assert fields.streams == fields.background == may_stream


@pytest.mark.parametrize(
    ("body", "spellings", "ambiguous"),
    [
        (b"{}", [], False),
        (b'{"model":"a","messages":[{"model":"b"}],"x":{"model":"c"}}', ["model"], False),
        (b'{"m\\u006fdel":"a"}', ["model"], False),
        (b'{"model":"a","model":"b"}', ["model", "model"], True),
        (b'{"model":"a","x":1,"\\u006dodel":"b"}', ["model", "model"], True),
        (b'{"model":"a","Model":"b"}', ["model", "Model"], True),
        (b'{"MODEL":"b"}', ["MODEL"], True),
        ('{"ſtream":true,"model":"a"}'.encode(), ["ſtream", "model"], False),
        (b'{"models":"a","model ":"b","mo\\ndel":"c"}', [], False),
    ],
)
def test_every_spelling_of_a_field_is_reported(body: bytes, spellings: list[str], *, ambiguous: bool) -> None:
    fields = read_fields(body)
    assert [*fields.spellings] == spellings
    assert fields.is_ambiguous("model") == ambiguous


def test_a_key_that_folds_to_a_field_is_ambiguous() -> None:
    assert read_fields('{"ſtream":true}'.encode()).is_ambiguous("stream")


@pytest.mark.parametrize("value", ["1e999", "-1e999", "1" * 60, "1" * 5000, "0.0000000001e-999", '"\\u0000"'])
def test_any_value_of_stream_is_read(value: str) -> None:
    assert read_fields(b'{"stream":%b}' % value.encode()).streams


def test_the_last_of_repeated_fields_counts() -> None:
    body = b'{"model":"a","stream":true,"model":"b","stream":false}'
    assert (read_fields(body).model, read_fields(body).streams) == ("b", False)


def test_the_spellings_of_endlessly_repeated_fields_are_bounded() -> None:
    repeated = b'"stream":1,' * 900 + b'"model":"first",' * 900
    fields = read_fields(b'{%b"model":"last"}' % repeated)
    assert fields.model == "last"
    assert fields.is_ambiguous("model")
    assert len(fields.spellings) <= 100


def test_no_usual_name_hides_a_model() -> None:
    assert [name for name in _USUAL_NAMES if word_for_model(name) or name.casefold() in _NAMES] == []


@given(JSON)
def test_every_valid_object_is_accepted(value: Any) -> None:
    body = json.dumps({"value": value}, ensure_ascii=True)
    if not any(0xD800 <= ord(char) <= 0xDFFF for char in str(value)):
        read_fields(body.encode())


def reads_strictly(body: bytes) -> bool:
    """Whether the standard library reads the body as a JSON object, strictly by RFC 8259."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        text = body.decode()
        value = json.loads(text, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()  # Fails for lone surrogates.
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


@given(
    st.lists(
        st.sampled_from(
            [
                *'{}[]:,"\\/ \t\n01-+.eE',
                "\\u",
                "d8",
                "dc",
                "00",
                '"a"',
                "true",
                "null",
                "NaN",
                "é",
                "\x00",
                "\x7f",
            ]
        ),
        max_size=12,
    )
)
@example(['{"a":', '"\\u', "d8", "00", '"}'])
def test_only_objects_of_standard_json_are_accepted(pieces: list[str]) -> None:
    for body in ("".join(pieces).encode(), ('{"a":' + "".join(pieces) + "}").encode()):
        try:
            read_fields(body)
        except InvalidRequest:
            assert not reads_strictly(body)
        else:
            assert reads_strictly(body)


@pytest.mark.parametrize("depth", [1, 10, 100, 800, 900, 950, 990, 1000, 5_000, 20_000, 1_000_000])
def test_any_depth_is_accepted_or_rejected(depth: int) -> None:
    for body in (b'{"a":' + b"[" * depth + b"]" * depth + b"}", b'{"model":' * depth + b"1" + b"}" * depth):
        try:
            fields = read_fields(body)
        except InvalidRequest:
            assert depth > 100
        else:
            assert fields.model is None
            assert replace_model(body, "new") == body


@pytest.mark.parametrize("name", ["%d", "a"], ids=["different", "equal"])
def test_a_body_has_a_bounded_number_of_members(name: str) -> None:
    """The model of one that is accepted can be replaced; each member takes a step in the event loop."""

    def body(members: int) -> bytes:
        names = [name % number if "%" in name else name for number in range(members - 1)]
        return b'{%b"model":"old"}' % "".join(f'"{each}":1,' for each in names).encode()

    accepted = body(MEMBERS_MAX)
    assert read_fields(accepted).model == "old"
    assert read_fields(replace_model(accepted, "new")).model == "new"
    with pytest.raises(InvalidRequest, match="more than 2000 members"):
        read_fields(body(MEMBERS_MAX + 1))


def test_the_name_of_a_member_has_a_bounded_length() -> None:
    """A word that names a model is searched in each name."""
    assert read_fields(b'{"%bmodel":1}' % (b"x" * (NAME_CHARACTERS_MAX - 5))).other_model_word == "model"
    with pytest.raises(InvalidRequest, match="name of more than 1000 characters"):
        read_fields(b'{"%bmodel":1}' % (b"x" * NAME_CHARACTERS_MAX))


@pytest.mark.parametrize("character", [b"m", rb"\ud83d\ude00"])
def test_a_model_of_any_allowed_length_is_read_and_a_much_longer_one_is_not(character: bytes) -> None:
    model = read_fields(b'{"model":"%b"}' % (character * MODEL_CHARACTERS_MAX)).model
    assert model is not None
    assert len(model) == MODEL_CHARACTERS_MAX
    with pytest.raises(InvalidRequest, match="more than 1000 characters"):
        read_fields(b'{"model":"%b"}' % (character * 12 * (MODEL_CHARACTERS_MAX + 1)))
    assert read_fields(b'{"model":[%b1]}' % (b"1," * 12 * MODEL_CHARACTERS_MAX)).model is None


@given(st.binary(max_size=60))
def test_any_bytes_are_accepted_or_rejected(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        read_fields(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a": "\xff"}', "not valid UTF-8 (byte 7)"),
        (b"", "not valid JSON"),
        (b" ", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"\r\n\t 7", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"model=x", "not a JSON object"),
        (b"\x00{}", "not a JSON object"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": [NaN]}', "not valid JSON"),
        (b'{"a": -Infinity}', "not valid JSON"),
        (b'{"a": 1}\x00', "not valid JSON"),
        (b'{"a": "\x00"}', "not valid JSON"),
        (b'{"a\x1f": ""}', "not valid JSON"),
        (b'{"\\ud800": ""}', "not valid JSON"),
        (b'{"a": [{"b": "\\udc00\\ud800"}]}', "not valid JSON"),
        (b'{"a": "\xed\xa0\x80"}', "not valid UTF-8 (byte 7)"),
        (b'{"a": "\xc0\x80"}', "not valid UTF-8 (byte 7)"),
        (b'{"a": "' + b"x" * 65_528 + b'\xe4\xbd\xff"}', "not valid UTF-8 (byte 65535)"),
        (b'{"a": "' + b"x" * 65_527 + b"\xe4\xbd", "not valid UTF-8 (byte 65534)"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b'{"a":["\\udc00x"]}', "not valid JSON"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a":' + b"[" * 200_000, "nested too deeply"),
        (b"\xef\xbb\xbf{}", "not a JSON object"),
    ],
)
def test_invalid_bodies_are_rejected(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words.replace("(", r"\(").replace(")", r"\)")):
        read_fields(body)


def test_an_escaped_backslash_is_not_a_surrogate() -> None:
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
        (b'{"x":[1,{"y":2}] , "model"\t:\n"a"}', b'{"x":[1,{"y":2}] , "model"\t:\n"new"}'),
        (b'{"\\"model":"b","model":"a"}', b'{"\\"model":"b","model":"new"}'),
    ],
)  # fmt: skip
def test_only_the_model_is_replaced(body: bytes, expected: bytes) -> None:
    assert replace_model(body, "new") == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("model"), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text() | st.just("model"), json_values, max_size=6), st.text())
def test_only_the_outermost_model_of_an_object_is_replaced(body: dict[str, object], name: str) -> None:
    renamed = json.loads(replace_model(json.dumps(body).encode(), name))
    expected = {**body, "model": name} if isinstance(body.get("model"), str) else body
    assert renamed == expected
