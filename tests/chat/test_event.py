"""Events have exactly the bytes of flask-sse, in responses and in Redis."""

import math
from collections.abc import Iterator

import flask
import flask_sse  # type: ignore[import-untyped]
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.chat.event import Event, encode_comment, parse_id

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NOT_SPLIT_BY_BROWSERS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"
TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters=NOT_SPLIT_BY_BROWSERS))
FIELDS = st.none() | st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n\0"), max_size=12
)
RETRIES = st.none() | st.integers(0, 10**9)


@pytest.fixture(autouse=True, scope="module")
def flask_application() -> Iterator[None]:
    """flask-sse writes JSON through the provider of the application."""
    with flask.Flask("site").app_context():
        yield


def as_flask_sse_sends(event: Event) -> bytes:
    return str(flask_sse.Message(event.data, event.type, event.id, event.retry)).encode()


def as_flask_sse_publishes(event: Event) -> bytes:
    fields = flask_sse.Message(event.data, event.type, event.id, event.retry).to_dict()
    return flask.json.dumps(fields).encode()


def test_the_articles_event_is_written_as_in_the_article() -> None:
    event = Event({"message": "<div class='left'><p>你好\n</p></div>"}, "message_event", "7-0", 3000)
    assert event.encode() == (
        b"event:message_event\n"
        b'data:{"message": "<div class=\'left\'><p>\\u4f60\\u597d\\n</p></div>"}\n'
        b"id:7-0\nretry:3000\n\n"
    )


@given(JSON, FIELDS, FIELDS, RETRIES)
def test_json_is_sent_and_published_to_the_byte_as_flask_sse_does(
    data: object, kind: str | None, name: str | None, retry: int | None
) -> None:
    assume(not isinstance(data, str))
    event = Event(data, kind, name, retry)
    assert event.encode() == as_flask_sse_sends(event)
    assert event.envelope() == as_flask_sse_publishes(event)


@given(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters=NOT_SPLIT_BY_BROWSERS)), FIELDS
)
def test_texts_are_sent_and_published_to_the_byte_as_flask_sse_does(text: str, kind: str | None) -> None:
    event = Event(text, kind)
    assert event.encode() == as_flask_sse_sends(event)
    assert event.envelope() == as_flask_sse_publishes(event)


@pytest.mark.parametrize("mark", NOT_SPLIT_BY_BROWSERS)
def test_a_text_is_split_only_where_browsers_split(mark: str) -> None:
    assert Event(f"a{mark}b").encode() == f"data:a{mark}b\n\n".encode()


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\r\nb"])
def test_every_line_end_of_browsers_begins_a_data_line(text: str) -> None:
    assert Event(text).encode() == b"data:a\ndata:b\n\n"


@pytest.mark.parametrize("field", ["a\nb", "a\rdata:x", "a\0", "\n"])
def test_a_line_end_cannot_smuggle_in_a_field(field: str) -> None:
    with pytest.raises(ValueError, match="line end"):
        Event("x", type=field)
    with pytest.raises(ValueError, match="line end"):
        Event("x", id=field)


def test_a_negative_retry_is_rejected() -> None:
    with pytest.raises(ValueError, match="negative"):
        Event("x", retry=-1)


def test_a_lone_surrogate_does_not_end_a_stream() -> None:
    assert Event("\ud800").encode() == b"data:?\n\n"


@given(JSON, FIELDS, FIELDS, RETRIES)
def test_an_encoded_envelope_is_decoded_unchanged(
    data: object, kind: str | None, name: str | None, retry: int | None
) -> None:
    event = Event(data, kind or None, name or None, retry or None)
    assert Event.from_envelope(event.envelope()) == event


@given(JSON, FIELDS, st.from_regex(r"[0-9]{1,13}-[0-9]{1,3}", fullmatch=True), RETRIES)
def test_an_id_fits_between_the_parts_of_an_envelope(
    data: object, kind: str | None, name: str, retry: int | None
) -> None:
    head, tail = Event(data, kind, retry=retry).envelope_parts()
    whole = head + b', "id": "' + name.encode() + b'"' + tail
    assert whole == Event(data, kind, name, retry).envelope()


@given(st.binary() | JSON.map(lambda value: flask.json.dumps(value).encode()))
def test_an_invalid_envelope_raises_value_error(raw: bytes) -> None:
    try:
        event = Event.from_envelope(raw)
    except ValueError:
        return
    assert event.encode().endswith(b"\n\n")


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"null", b"[]", b"{}", b'{"type": "x"}', b'{"data": 1, "type": "a\\nb"}', b"\xff",
        b'{"data": 1, "retry": "soon"}', b'{"data": 1, "retry": -5}', b'{"data": 1, "id": [1]}',
        b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)  # fmt: skip
def test_an_invalid_envelope_is_not_an_event(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Event.from_envelope(raw)


def test_numbers_in_fields_are_treated_as_in_flask_sse() -> None:
    assert Event.from_envelope(b'{"data": 1, "id": 7, "type": 5, "retry": "20"}') == Event(1, "5", "7", 20)


def test_unknown_fields_of_an_envelope_are_left_out() -> None:
    assert Event.from_envelope(b'{"data": "x", "later": 1}') == Event("x")


@pytest.mark.parametrize(("text", "position"), [("0-0", (0, 0)), ("1700000000000-12", (1700000000000, 12))])
def test_an_id_names_a_position(text: str, position: tuple[int, int]) -> None:
    assert parse_id(text) == position
    assert Event("x", id=text).position == position


@pytest.mark.parametrize(
    "text",
    [None, "", "7", "1-", "-1", "1-1-1", "1-1\n", " 1-1", "١-١", "+1-1", f"{2**64}-0", "9" * 5000 + "-0"],
)
def test_other_values_are_not_ids(text: str | None) -> None:
    assert parse_id(text) is None


def test_every_id_except_the_last_possible_one_is_valid() -> None:
    assert parse_id(f"{2**64 - 1}-{2**64 - 2}") == (2**64 - 1, 2**64 - 2)
    assert parse_id(f"{2**64 - 1}-{2**64 - 1}") is None


def test_a_comment_never_contains_an_event() -> None:
    assert encode_comment("ping") == b": ping\n\n"
    assert encode_comment("a\ndata:b") == b": a\n: data:b\n\n"


def test_not_a_number_is_written_as_flask_writes_it() -> None:
    assert Event({"x": math.nan}).encode() == b'data:{"x": NaN}\n\n'
