"""JSON that is parsed one level at a time: unchanged values keep their bytes, and long lists are refused."""

import subprocess
import sys

import msgspec
import pytest

from proxy.wire.repairs.shallow_json import (
    FEW_ITEMS,
    ITEMS_MAX,
    MEMBERS_MAX,
    OBJECTS_MAX,
    SHORT_BYTES,
    VALUES_MAX,
    Members,
    TooManyItems,
    change_items,
    has_too_many_values,
    holds_too_much,
    is_empty,
    is_null,
    is_text,
    open_list,
    open_object,
    read_value,
    to_json,
    write,
)
from tests.linear_time import assert_bounded
from tests.pace import PATIENCE


def test_unchanged_members_keep_their_bytes() -> None:
    members = open_object(b'{"number": 1.50, "text": "\\u4f60", "inner": {"b": 1,  "a": 2}}')
    assert members is not None
    members["more"] = write([None, True])
    assert to_json(members) == (
        b'{"number":1.50,"text":"\\u4f60","inner":{"b": 1,  "a": 2},"more":[null,true]}'
    )


@pytest.mark.parametrize("written", [None, b"", b"null", b"{", b'{"a": }', b"\xff", b"[" * 40_000])
def test_invalid_json_has_neither_members_nor_a_value(written: bytes | None) -> None:
    assert open_object(written) is None
    assert open_list(written) is None
    assert read_value(written) is None


def test_a_list_is_opened_up_to_its_limit() -> None:
    assert open_list(b"{}") is None
    assert open_list(b'[1, "a"]') == [msgspec.Raw(b"1"), msgspec.Raw(b'"a"')]
    assert len(open_list(b"[" + b"1," * (ITEMS_MAX - 1) + b"1]") or []) == ITEMS_MAX
    with pytest.raises(TooManyItems):
        open_list(b"[" + b"1," * ITEMS_MAX + b"1]")


@pytest.mark.parametrize("item", [b"1", b'"%b"' % (b"a, b" * 40), b"[%b1]" % (b"1," * 40)])
@pytest.mark.parametrize("count", [1, FEW_ITEMS - 1, FEW_ITEMS, FEW_ITEMS + 1, ITEMS_MAX, ITEMS_MAX + 1])
def test_a_long_list_is_opened_up_to_its_limit(item: bytes, count: int) -> None:
    written = b"[%b%b]" % (b" " * SHORT_BYTES, b",".join([item] * count))
    if count > ITEMS_MAX:
        with pytest.raises(TooManyItems):
            open_list(written)
    else:
        assert open_list(written) == [msgspec.Raw(item)] * count


def test_a_body_of_too_many_objects_or_members_is_recognised() -> None:
    assert holds_too_much(b"{}," * (OBJECTS_MAX + 1))
    assert not holds_too_much(b"{}," * OBJECTS_MAX)
    for colon in (b":", b" :", b"\n\t: "):
        members = b'{"a"%b1%b}' % (colon, b',"a"%b1' % colon * MEMBERS_MAX)
        assert holds_too_much(members)
        assert not holds_too_much(msgspec.json.encode({"content": members.decode() * 3}))


def test_what_a_text_holds_are_no_values() -> None:
    text = 'a, [b], {"c"}, \\' * VALUES_MAX
    for value in ([text], {"a": text, text: [text, 1]}, [{"a": "[,{"}] * (VALUES_MAX // 2 - 1)):
        written = msgspec.json.encode(value)
        assert not has_too_many_values(written)
        assert read_value(written) == value
    members = {str(number): "a,b" for number in range(VALUES_MAX + 2)}
    examples: tuple[object, ...] = (
        [1] * (VALUES_MAX + 2),
        [""] * (VALUES_MAX + 2),
        [[]] * VALUES_MAX,
        members,
    )
    for many in examples:
        assert has_too_many_values(msgspec.json.encode(many))


@pytest.mark.parametrize(
    ("written", "null", "empty", "text"),
    [
        (None, True, True, False),
        (b"null", True, True, False),
        (b'""', False, True, False),
        (b"[ ]", False, True, False),
        (b"{\n}", False, True, False),
        (b"0", False, False, False),
        (b"[0]", False, False, False),
        (b'"x"', False, False, True),
    ],
)
def test_the_kind_of_a_member_is_recognised(
    written: bytes | None, *, null: bool, empty: bool, text: bool
) -> None:
    raw = None if written is None else msgspec.Raw(written)
    assert (is_null(raw), is_empty(raw), is_text(raw)) == (null, empty, text)


def test_only_changed_items_are_written_again() -> None:
    def add(members: Members) -> Members | None:
        return {**members, "new": write(1)} if "old" in members else None

    members = {
        name: msgspec.Raw(written)
        for name, written in {"same": b'[{"x": 1}, 7]', "old": b'[{"x":  1}, {"old": 1.0}, 7]'}.items()
    }
    assert change_items(members, "same", add) is None
    assert change_items(members, "missing", add) is None
    changed = {name: bytes(written) for name, written in (change_items(members, "old", add) or {}).items()}
    assert changed == {"same": b'[{"x": 1}, 7]', "old": b'[{"x":  1},{"old":1.0,"new":1},7]'}


@pytest.mark.parametrize("unit", [b'\\",', b'",', b"\\,", b'"\\",'])
def test_a_text_that_never_ends_is_read_once(unit: bytes) -> None:
    for count in (has_too_many_values, holds_too_much):
        assert_bounded(count, b'["' + unit * 300_000, digests=300, memory=2)


def test_ordinary_long_lists_need_no_large_decoder() -> None:
    """Building one takes tens of milliseconds, in which a worker serves no request."""
    program = """
import msgspec
build, sizes = msgspec.defstruct, []
def defstruct(name, fields, **options):
    sizes.append(len(fields))
    return build(name, fields, **options)
msgspec.defstruct = defstruct
from proxy.wire.repairs.shallow_json import open_list
texts, vectors, messages = ["a, b" * 9_000] * 200, [[0.25] * 1_024] * 64, [{"a": "a, b"}] * 5_000
for items in (texts, vectors, messages, [""] * 40_000):
    try:
        open_list(msgspec.json.encode(items))
    except Exception as error:
        assert type(error).__name__ == "TooManyItems" and len(items) == 40_000
print(max(sizes))
"""
    built = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=PATIENCE)
    assert int(built.stdout) == FEW_ITEMS
