"""Every rule of the wire takes linear time and bounded memory for any input."""

import contextlib
from collections.abc import Callable
from functools import partial

import pytest
from msgspec.structs import replace

from proxy.errors import InvalidRequest, NotFound
from proxy.wire.endpoints import CHAT_COMPLETIONS, Endpoint
from proxy.wire.error_envelope import read_error
from proxy.wire.event_stream import EventFramer
from proxy.wire.form_body import PARTS_MAX, read_form, replace_form_model
from proxy.wire.forwarded import TrustedProxies
from proxy.wire.headers import (
    choose_request_id,
    find_header,
    media_type,
    relocate,
    request_headers,
    response_headers,
)
from proxy.wire.model_list import listing, merge, read_entries
from proxy.wire.paths import check_target, find_target
from proxy.wire.request_json import MEMBERS_MAX, read_fields, replace_model
from proxy.wire.request_model import InspectedRequest, find_models
from proxy.wire.response_end import ResponseMeter, announced_idle_seconds
from proxy.wire.retry_after import read_retry_after
from proxy.wire.site import is_from_foreign_page, names_own_host
from proxy.wire.stream_errors import find_error_code
from proxy.wire.usage import TAIL_BYTES, read_stream_usage, read_usage, read_usage_in_tail
from proxy.wire.websocket import find_model, rename_model, split_subprotocols
from tests.linear_time import KIB, MIB, UNITS, assert_linear, chunks
from tests.steps import run_steps

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


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'{"a":[{"b":1}]},', b'"",', b"1,"])
def test_the_values_of_the_largest_json_request_body(unit: bytes) -> None:
    assert_linear(read_fields, [unit], before=b'{"a":[', after=b"1]}", limit=32 * MIB, memory=1)


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
        with contextlib.suppress(InvalidRequest):
            replace_form_model(read_form(FORM, body), body, "new")

    assert_linear(run, before=before, after=after, limit=MIB, memory=6)


@pytest.mark.parametrize("header", [b"; a=", b'; a="', b"; ", b"\r\na:"])
def test_the_headers_of_the_parts_of_a_form(header: bytes) -> None:
    """Headers that no client writes take longer to parse, so few of them are."""

    def run(headers: bytes) -> None:
        parts = [b'--b\r\nContent-Disposition: form-data; name="a"%b\r\n\r\nx\r\n' % each for each in
                 chunks(headers, len(headers) // PARTS_MAX + 1)]  # fmt: skip
        assert read_form(FORM, b"".join(parts) + FIELD + b"--b--\r\n").repeated is None

    units = (b";", b"; a=b", b"; b*0=a", b'\\"', b"%41", b"a:b\r\n", b"a")
    assert_linear(run, units, before=header, limit=MIB, memory=10, seconds_per_mib=0.01)


@pytest.mark.parametrize("unit", [b"\r\n--b", b"\r\n--bb", b"\r\n--b--b", b"a"])
def test_a_large_form(unit: bytes) -> None:
    before, after = FIELD + b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n', b"\r\n--b--\r\n"
    run = partial(read_form, FORM)
    assert_linear(run, [unit], before=before, after=after, limit=16 * MIB, memory=1, seconds_per_mib=0.01)


@pytest.mark.parametrize(
    "unit", [b"a", b"\\u00e9", b"\\\\", b'\\"', b"model", b'","model":"m', b'","model":"m","text":"\\u00e9']
)
@pytest.mark.parametrize(
    ("endpoint", "seconds"),
    [(CHAT_COMPLETIONS, 0.0025), (replace(CHAT_COMPLETIONS, nested_models=True), 0.01)],
)
def test_the_model_of_a_large_json_request_body(endpoint: Endpoint, seconds: float, unit: bytes) -> None:
    def run(body: bytes) -> None:
        headers = [(b"content-type", b"application/json")]
        request = InspectedRequest(endpoint=endpoint, headers=headers, body=body, fields=read_fields(body))
        found = run_steps(find_models(request))
        assert found.names or found.ambiguity == "a tool may name another one"

    before, after = b'{"a":{"model":"m","text":"', b'"},"model":"m"}'
    assert_linear(run, [unit], before=before, after=after, limit=32 * MIB, memory=2, seconds_per_mib=seconds)


def test_the_content_type_of_a_form() -> None:
    def run(parameters: bytes) -> None:
        read_form(b"multipart/form-data; boundary=" + parameters, FIELD)
        read_form(parameters, FIELD)

    assert_linear(run, limit=64 * KIB, memory=20)


def frame(size: int) -> Callable[[bytes], None]:
    """Feed a stream in pieces, as the relay does."""

    def run(body: bytes) -> None:
        framer = EventFramer(MIB)
        for chunk in chunks(body, size):
            find_error_code(framer.feed(chunk))
            if framer.too_large:
                break
        framer.flush(drop_cut=True)
        assert framer.finished in {True, False}

    return run


@pytest.mark.parametrize("size", [100, MIB])
@pytest.mark.parametrize("before", [b"", b'data: {"a":"', b"\r\ndata: {}\r\n"])
def test_an_event_stream(before: bytes, size: int) -> None:
    assert_linear(frame(size), before=before, limit=64 * KIB, memory=16)


@pytest.mark.parametrize("before", [b"data: ", b"event: a\r\ndata: "])
def test_a_large_event_in_small_pieces(before: bytes) -> None:
    def run(event: bytes) -> None:
        framer = EventFramer(16 * MIB)
        for chunk in chunks(event, 512):
            assert not framer.feed(chunk)

    assert_linear(run, [b"x"], before=before, limit=8 * MIB, memory=4)


def test_large_events_of_a_stream_with_heartbeats() -> None:
    def run(event: bytes) -> None:
        framer = EventFramer(16 * MIB)
        for _ in range(4):
            for chunk in chunks(event, 4 * KIB):
                framer.feed(chunk)
                assert not framer.marked

    assert_linear(run, [b"x"], before=b"data: ", after=b"\n\n", limit=2 * MIB, memory=5)


@pytest.mark.parametrize("before", [b"", b'{"error":', b'{"usage":{"prompt_tokens":1,"a":'])
def test_the_end_of_a_response(before: bytes) -> None:
    def run(body: bytes) -> None:
        read_usage(body)
        read_usage_in_tail(body)
        read_error(body)

    assert_linear(run, before=before, limit=TAIL_BYTES, memory=100)


@pytest.mark.parametrize("line_end", [b"\n", b"\r"])
def test_the_usage_of_a_stream_with_a_large_event(line_end: bytes) -> None:
    after = b'"}' + line_end + b'data: {"usage":null}%b' % line_end * 99
    assert_linear(
        read_stream_usage,
        [b"a"],
        before=b'data: {"usage":null,"a":"',
        after=after,
        limit=16 * MIB,
        memory=1,
        seconds_per_mib=0.001,
    )


@pytest.mark.parametrize("before", [b"", b'{"data":[', b'["'])
def test_a_list_of_models(before: bytes) -> None:
    def run(body: bytes) -> None:
        with contextlib.suppress(ValueError):
            listing(merge([read_entries(body)]))

    units = (*UNITS, b'{"id":"a"},', b'"a",', b'{"id":"a","created":1},')
    assert_linear(run, units, before=before, after=b"1]", limit=256 * KIB, memory=150)


@pytest.mark.parametrize("before", [b"", b"/v1/models/", b"/v1/x?"])
def test_a_target(before: bytes) -> None:
    def run(target: bytes) -> None:
        path, _, query = target.partition(b"?")
        with contextlib.suppress(InvalidRequest, NotFound):
            check_target(path, query)
            find_target("POST", path)
        with contextlib.suppress(InvalidRequest):
            find_model(target)
        rename_model(target, "new")

    assert_linear(run, before=before, limit=64 * KIB, memory=250)


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"host",
        b"origin",
        b"x-request-id",
        b"retry-after",
        b"retry-after-ms",
        b"keep-alive",
        b"content-length",
        b"content-type",
        b"authorization",
        b"link",
        b"location",
    ],
)
def test_a_header(name: bytes) -> None:
    proxies = TrustedProxies(["127.0.0.0/8"])

    def run(value: bytes) -> None:
        for headers in ([(name, value)], [(name, part) for part in chunks(value, 512)]):
            request_headers(headers, request_id="a")
            response_headers(headers, event_stream=True)
            relocate(headers, "http://10.0.0.7/v1", b"/models")
            choose_request_id(headers)
            media_type(find_header(headers, name))
            proxies.visitor("127.0.0.1", headers)
            proxies.is_secure("http", "127.0.0.1", headers)
            proxies.hosts("127.0.0.1", headers)
            names_own_host(headers, ())
            is_from_foreign_page(headers, (), trusts_loopback=True)
            read_retry_after(headers, 0.0)
            announced_idle_seconds(headers)

    units = (
        b" ",
        b",",
        b", ",
        b"a,",
        b";",
        b"=",
        b'"',
        b"1",
        b".",
        b":",
        b"[",
        b"::1,",
        b"%",
        b"\xff",
        b"a=1;",
        b"(",
    )
    assert_linear(run, units, limit=64 * KIB, memory=100)


def test_the_subprotocols_of_a_websocket() -> None:
    assert_linear(
        lambda value: split_subprotocols(value.decode("latin-1").split(",")), limit=64 * KIB, memory=60
    )


@pytest.mark.parametrize("size", [1, 64 * KIB])
def test_the_raw_bytes_of_a_response(size: int) -> None:
    def run(body: bytes) -> None:
        meter = ResponseMeter()
        for chunk in chunks(body, size):
            meter.feed(chunk)

    units = (b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"a: b\r\n", b"0\r\n", b"x")
    assert_linear(run, units, before=b"HTTP/1.1 200 OK\r\n", limit=32 * KIB, memory=8)
