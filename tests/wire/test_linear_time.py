"""Every rule of the wire costs linear time and bounded memory, whatever a caller or an upstream sends."""

import contextlib

import pytest

from proxy.errors import InvalidRequest
from proxy.wire.form_body import read_form, replace_form_model
from proxy.wire.request_json import MEMBERS_MAX, read_fields, replace_model
from tests.linear_time import KIB, MIB, assert_linear

FORM = b"multipart/form-data; boundary=b"
FIELD = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"{", b'"z":1}'),
        (b'{"a":[', b"1]}"),
        (b'{"a":"', b'"}'),
        (b'{"', b'":1}'),
        (b'{"model":"', b'"}'),
        (b'{"model":', b"}"),
        (b'{"model":[', b"1]}"),
        (b'{"stream":', b"}"),
        ('{"a":"😀'.encode(), b'"}'),
    ],
)
def test_a_json_request_body(before: bytes, after: bytes) -> None:
    def run(body: bytes) -> None:
        with contextlib.suppress(InvalidRequest):
            read_fields(body)
            replace_model(body, "new")

    assert_linear(run, before=before, after=after, limit=MIB, memory=6)


@pytest.mark.parametrize("unit", [b"[],", b'"model":"",', b'"a":1,', b'{"a":[{"b":1}]},'])
def test_the_largest_json_request_body(unit: bytes) -> None:
    before, after = (b"{", b'"z":1}') if b'":' in unit[:8] and unit[:1] == b'"' else (b'{"a":[', b"1]}")
    assert_linear(read_fields, [unit], before=before, after=after, limit=16 * MIB, memory=1)


def test_the_members_of_an_object() -> None:
    members = b",".join(b'"%d":1' % number for number in range(MEMBERS_MAX - 1))
    assert_linear(
        lambda body: replace_model(body, "new"),
        [b"x"],
        before=b"{%b" % members + b',"model":"',
        after=b'"}',
        limit=MIB,
        memory=6,
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"--b\r\n", b"--b--\r\n"),
        (FIELD, b"--b--\r\n"),
        (FIELD + b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n', b"\r\n--b--\r\n"),
        (b"--b\r\nContent-Disposition: form-data; ", b"\r\n\r\nm\r\n--b--\r\n"),
        (FIELD.removesuffix(b"m\r\n"), b"\r\n--b--\r\n"),
    ],
)
def test_a_form(before: bytes, after: bytes) -> None:
    def run(body: bytes) -> None:
        read_form(FORM, body)
        replace_form_model(FORM, body, "new")

    assert_linear(run, before=before, after=after, limit=MIB, memory=6)


def test_the_content_type_of_a_form() -> None:
    def run(parameters: bytes) -> None:
        read_form(b"multipart/form-data; boundary=" + parameters, FIELD)
        read_form(parameters, FIELD)

    assert_linear(run, limit=64 * KIB, memory=20)
