"""JSON that only Python reads is rewritten as strict JSON, and nothing else changes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.repairs.lenient_json import mark_halves, restore_halves, without_nan
from proxy.wire.repairs.shallow_json import open_object
from tests.linear_time import KIB, UNITS, assert_linear
from tests.wire.repairs.streams import JSON


@pytest.mark.parametrize(
    ("lenient", "strict"),
    [
        (b'{"a": NaN, "b": -Infinity, "c": [Infinity]}', b'{"a": null, "b": null, "c": [null]}'),
        (rb'{"NaN": "NaN \" Infinity", "n": 1.10}', rb'{"NaN": "NaN \" Infinity", "n": 1.10}'),
        (rb'{"a": "\\", "b": NaN}', rb'{"a": "\\", "b": null}'),
        (b'{"a": "NaN', b'{"a": "NaN'),
    ],
)
def test_numbers_that_are_none_become_null_outside_of_strings(lenient: bytes, strict: bytes) -> None:
    assert without_nan(lenient) == strict


@pytest.mark.parametrize("text", [rb"\ud83d", rb"a\uDE00b", rb"\ud83d\ud83d\ude00", rb"\ud83d\u0041"])
def test_halves_of_characters_are_marked_for_a_strict_parser(text: bytes) -> None:
    written = b'{"a":"%s"}' % text
    assert open_object(written) is None
    marked = mark_halves(written)
    assert open_object(marked) is not None
    assert restore_halves(marked) == written


@pytest.mark.parametrize("text", [rb"\ud83d\ude00", rb"\\ud83d", rb"\u00e9", "é😀".encode()])
def test_whole_characters_are_not_marked(text: bytes) -> None:
    assert mark_halves(text) == text


def test_other_invalid_bytes_stay() -> None:
    assert restore_halves(b"\xff\xffu00e9") == b"\xff\xffu00e9"


@given(JSON, st.booleans())
def test_strict_json_does_not_change(value: object, ascii_only: bool) -> None:  # noqa: FBT001
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert without_nan(text) == text
    assert mark_halves(text) == text


@pytest.mark.parametrize("rewrite", [without_nan, mark_halves, restore_halves])
@pytest.mark.parametrize("before", [b"", b'"'])
def test_it_takes_linear_time(rewrite: object, before: bytes) -> None:
    assert callable(rewrite)
    assert_linear(rewrite, UNITS, before=before, limit=64 * KIB, memory=128)
