"""No bytes of a caller or an upstream block the event loop: every reader takes linear time and little memory.

Each reader gets each shape of JSON in each place that it parses, in a size far beyond every bound. The time
is compared with that of a digest of the same bytes. A tree of the values shows in the memory, which does not
depend on the machine.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from proxy.chat.deltas import DeltaReader, EventSplitter
from proxy.credentials.sources.reply import XML_BYTES_MAX, embedded, parse_body
from proxy.errors import InvalidRequest, ProxyError
from proxy.upstream.repaired import INLINE_BYTES_MAX
from proxy.wire.endpoints import CHAT_COMPLETIONS, Shape
from proxy.wire.error_envelope import forbidden_error, read_error
from proxy.wire.event_stream import EventFramer
from proxy.wire.form_body import read_form
from proxy.wire.model_list import filter_listing, read_entries
from proxy.wire.repairs import (
    REPAIRS,
    Call,
    StreamRepairer,
    read_call,
    repair_request,
    repair_response,
    resolve,
)
from proxy.wire.repairs.conversions import AnswerJoiner, answer_to_stream, lines_to_stream
from proxy.wire.repairs.framing import PART_EVENTS, cut_events
from proxy.wire.repairs.shallow_json import MEMBERS_MAX, OBJECTS_MAX, TooManyItems
from proxy.wire.repairs.streams import EVENT_BYTES_MAX, EVENT_MEMBERS_MAX, EVENT_OBJECTS_MAX
from proxy.wire.request_json import read_fields, replace_model
from proxy.wire.request_model import InspectedRequest, find_models
from proxy.wire.stream_errors import find_error_code
from proxy.wire.usage import read_event_usage, read_stream_usage, read_usage, read_usage_in_tail
from tests.linear_time import KIB, MIB, assert_bounded, best_seconds, chunks
from tests.steps import run_steps

SIZE: Final = 512 * KIB
ALL: Final = resolve(REPAIRS)
STREAM: Final = Call(Shape.CHAT, streams=True, usage_requested=True, tools=True)
CHUNK_BYTES: Final = 256 * KIB
"""How much of a stream arrives at once, at most."""

UNITS: Final = {
    "lists": (b"[", b"[],", b"1]"),
    "objects": (b"[", b"{},", b"1]"),
    "lists in objects": (b"[", b'{"a":[{"b":1}]},', b"1]"),
    "tool calls": (b"[", b'{"index":0,"function":{"arguments":{}}},', b"1]"),
    "numbers": (b"[", b"1,", b"1]"),
    "fractions": (b"[", b"-0.125e1,", b"1]"),
    "texts": (b"[", b'"ab",', b'""]'),
    "equal members": (b"{", b'"a":1,', b'"b":1}'),
    "text": (b'"', b"a", b'"'),
    "escapes": (b'"', b"\\u00e9", b'"'),
    "halves of pairs": (b'"', b"\\ud83d", b'"'),
    "not ASCII": (b'"', "你".encode(), b'"'),
    "not UTF-8": (b'"', b"\xff", b'"'),
    "commas in texts": (b"[", b'"a,b[",', b'""]'),
    "JSON in a text": (b'"', b"[],", b'"'),
    "a long number": (b"", b"1", b""),
    "a long fraction": (b"0.", b"1", b""),
    "white space": (b"[", b" ", b"1]"),
    "lines": (b"[", b"\n", b"1]"),
    "NaN": (b"[", b"NaN,", b"1]"),
    "unclosed lists": (b"", b"[", b""),
    "unclosed objects": (b"", b'{"a":', b""),
    "closing brackets": (b"", b"]", b""),
}


def value(shape: str, size: int = SIZE) -> bytes:
    """Return JSON, or what resembles it, of about this size."""
    if shape == "different members":
        return b"{" + b",".join(b'"%x":1' % number for number in range(size // 10)) + b"}"
    before, unit, after = UNITS[shape]
    return before + unit * (size // len(unit)) + after


SHAPES: Final = (*UNITS, "different members")
NO_FLOODS: Final = tuple(shape for shape in SHAPES if shape != "lines")
shapes = pytest.mark.parametrize("shape", SHAPES)


def suppressed(*readers: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """Return a function that calls each reader, which may reject its input."""

    def run(data: bytes) -> None:
        for read in readers:
            with contextlib.suppress(ProxyError, ValueError, TooManyItems):
                read(data)

    return run


def check(run: Callable[[bytes], object], data: bytes, *, memory: float = 8) -> None:
    """Check a reader on one input."""
    assert_bounded(run, data, digests=300, memory=memory)


def _memory(place: bytes, shape: str, usual: float) -> float:
    """Return the bound for a place. What only Python reads is built, up to a few MiB of it."""
    return 60 if b"NaN" in place or shape in {"NaN", "halves of pairs", "not UTF-8"} else usual


@shapes
def test_a_request(shape: str) -> None:
    def fields(body: bytes) -> None:
        read = read_fields(body)
        headers = [(b"content-type", b"application/json")]
        request = InspectedRequest(endpoint=CHAT_COMPLETIONS, headers=headers, body=body, fields=read)
        run_steps(find_models(request))
        replace_model(body, "new")

    whole = value(shape)
    check(suppressed(fields), whole)
    for name in (b"model", b"stream", b"a"):
        check(suppressed(fields), b'{"%b":%b}' % (name, whole))
    check(suppressed(fields), b'{"%b":1}' % whole.replace(b'"', b""))


@shapes
@pytest.mark.parametrize(
    ("kind", "places"),
    [
        (
            Shape.CHAT,
            (
                b'{"stream_options":%b,"drop_params":null,"stream":true}',
                b'{"stream":%b,"drop_params":null}',
                b'{"model":%b,"drop_params":null}',
                b'{"tools":%b,"drop_params":null}',
                b'{"messages":%b,"index":null}',
                b'{"messages":[{"content":null,"tool_calls":%b}],"index":null}',
                b'{"drop_params":null,%b',
            ),
        ),
        (
            Shape.EMBEDDINGS,
            (
                b'{"input":%b}',
                b'{"input":[1,%b]}',
                b'{"input":[[1],%b]}',
                b'{"encoding_format":%b,"input":[1]}',
            ),
        ),
        (Shape.RERANK, (b'{"query":"a","documents":%b}', b'{"query":"a","top_n":%b,"documents":[1]}')),
        (Shape.SPEECH, (b'{"stream_format":%b}',)),
    ],
)
def test_the_repair_of_a_request(kind: Shape, places: tuple[bytes, ...], shape: str) -> None:
    def repair(body: bytes) -> None:
        read_call(kind, body)
        repair_request(ALL, kind, body, lambda _: "")

    for place in places:
        whole = value(shape)
        check(suppressed(repair), place % (whole.removeprefix(b"{") if place.endswith(b",%b") else whole))


@shapes
@pytest.mark.parametrize(
    ("kind", "places"),
    [
        (
            Shape.CHAT,
            (
                b"%b",
                b'{"error":%b}',
                b'{"code":1,"message":"a","a":%b}',
                b'{"message":%b}',
                b'{"usage":%b,"choices":[{"message":{"content":"a"}}]}',
                b'{"base_resp":%b,"choices":[]}',
                b'{"data":{"choices":%b}}',
                b'{"choices":%b}',
                b'{"choices":[{"message":{"content":%b}}]}',
                b'{"choices":[{"message":{"tool_calls":%b}}]}',
                b'{"choices":[{"message":{"tool_calls":[{"function":{"name":"a","arguments":%b}}]}}]}',
                b'{"choices":[{"text":%b}],"a":NaN}',
            ),
        ),
        (Shape.EMBEDDINGS, (b'{"data":%b}', b'{"data":[{"embedding":%b}]}', b'{"embedding":%b}')),
        (Shape.RERANK, (b"%b", b'{"results":%b}', b'{"results":[{"score":%b}]}')),
        (Shape.TRANSCRIPTION, (b"%b", b'{"text":%b}')),
        (Shape.SPEECH, (b"%b",)),
    ],
)
def test_a_whole_response(kind: Shape, places: tuple[bytes, ...], shape: str) -> None:
    call = Call(kind, streams=None, inputs=1, documents=1, tools=True)
    readers = (
        lambda body: repair_response(ALL, call, body),
        lambda body: answer_to_stream(body, STREAM),
        lines_to_stream,
        read_usage,
        read_usage_in_tail,
        read_error,
    )
    for place in places:
        check(suppressed(*readers), place % value(shape), memory=_memory(place, shape, 20))


EVENTS: Final = (
    b"data: %b\n\n",
    b'data: {"error":%b}\n\n',
    b'event: error\ndata: {"code":%b}\r\n\r\n',
    b'data: {"type":"response.failed","response":{"error":%b,"usage":%b}}\n\n',
    b'data: {"type":%b,"error":{"code":"a"}}\n\n',
    b'data: {"usage":%b,"choices":[]}\n\n',
    b'data: {"base_resp":%b}\n\n',
    b'data: {"code":1,"message":"a","a":%b}\n\n',
    b'data: {"choices":%b}\n\n',
    b'data: {"choices":[{"delta":{"content":%b}}]}\n\n',
    b'data: {"choices":[{"delta":{"tool_calls":%b}}]}\n\n',
    b'data: {"choices":[{"delta":{"tool_calls":[{"index":%b}]}}]}\n\n',
    b'data: {"choices":[{"delta":{}}],"a":NaN,"b":%b}\n\n',
    b'data: {"usage":%b',
)


def read_stream(data: bytes) -> None:
    """Read a stream as the relay does."""
    framer, repairer = EventFramer(16 * MIB), StreamRepairer(ALL, STREAM)
    for chunk in (*chunks(data, CHUNK_BYTES), b""):
        whole = framer.feed(chunk) if chunk else framer.flush(drop_cut=True)
        with contextlib.suppress(ProxyError):
            repairer.first_error(whole)
        repairer.feed(whole)
        find_error_code(whole)
    assert framer.finished in {True, False}
    read_stream_usage(framer.recent)


def join(data: bytes) -> None:
    """Join a stream as the relay does."""
    joiner = AnswerJoiner(Call(Shape.CHAT))
    for part in cut_events(data):
        joiner.add(part)
    joiner.close()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        *((shape, SIZE // 2) for shape in NO_FLOODS),
        *((shape, EVENT_BYTES_MAX + 1) for shape in ("lists", "text", "not UTF-8", "unclosed objects")),
    ],
)
def test_an_event(shape: str, size: int) -> None:
    for place in EVENTS:
        count = place.count(b"%b")
        data = place % ((value(shape, size // count),) * count)
        check(suppressed(read_stream, join), data, memory=_memory(place, shape, 12))


@pytest.mark.parametrize(
    "unit",
    [b": c\n", b"data\n", b"data:\n", b"data:1\n", b'data:"usage"\n', b"event: error\n", b"event: a\r"],
)
def test_an_event_of_many_lines(unit: bytes) -> None:
    for before in (b"", b'data: {"error":\n', b'data: "usage"\n'):
        data = before + unit * (SIZE // len(unit))
        check(suppressed(read_stream, lines_to_stream), data, memory=40)


@pytest.mark.parametrize("shape", NO_FLOODS)
def test_a_payload_of_the_chat(shape: str) -> None:
    for place in (b"%b", b'{"choices":%b}', b'{"choices":[{"delta":{"content":%b}}]}', b'{"error":%b}'):
        read = suppressed(DeltaReader().read, EventSplitter().feed)
        check(read, place % value(shape, MIB), memory=20)


@shapes
def test_other_replies_of_upstreams(shape: str) -> None:
    models = (read_entries, lambda body: filter_listing(body, lambda _: True))
    for place in (b"%b", b'{"data":%b}', b'{"data":[{"id":"a","owned_by":%b}]}', b'{"data":[],"a":%b}'):
        check(suppressed(*models), place % value(shape))
    frames = (read_event_usage, read_error, lambda body: forbidden_error(403, body))
    for place in (b"%b", b'{"usage":%b}', b'{"response":{"usage":%b}}', b'{"error":%b}'):
        check(suppressed(*frames), place % value(shape))
    replies = (parse_body, lambda body: embedded(body.decode("utf-8", "replace")))
    for place in (b"%b", b'{"access_token":%b}'):
        check(suppressed(*replies), place % value(shape, MIB), memory=12)


@pytest.mark.parametrize("unit", [b"<b/>", b"<b c=''/>", b"<b>0</b>", b"<b>", b"&lt;", b"<!---->", b"<?b?>"])
def test_a_reply_in_xml(unit: bytes) -> None:
    for size in (XML_BYTES_MAX, MIB):
        check(suppressed(parse_body), b"<a>" + unit * (size // len(unit)) + b"</a>", memory=12)


@shapes
def test_a_form(shape: str) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--b--\r\n'
    check(suppressed(lambda body: read_form(b"multipart/form-data; boundary=b", body)), field % value(shape))


def test_an_ordinary_request_is_not_rejected() -> None:
    """The shapes are rejected for their size: a small one of each is read."""
    for shape in SHAPES:
        with contextlib.suppress(InvalidRequest):
            assert read_fields(b'{"model":"m","a":%b}' % value(shape, 10)).model == "m"


# --- one turn of the event loop

TURN_SECONDS: Final = 0.05
"""How long one turn may take on a quiet machine."""
ITEMS: Final = {
    "members": b'{"content":null,%b}' % b",".join(b'"%x":0' % number for number in range(1_000)),
    "null members": b'{"content":null,%b}' % b",".join(b'"%x":null' % number for number in range(200)),
    "calls": b'{"content":null,"tool_calls":[{"index":0,"function":{"name":"n"},"n":null}]}',
    "messages": b'{"content":null,"index":0}',
    "choices": b'{"message":{"content":null}}',
    "lists of content": b'{"message":{"content":[{"text":"a"}]}}',
    "choices with calls": b'{"message":{"tool_calls":[{"function":{"arguments":{}}}]}}',
    "numbers": b'{"index":1,"embedding":[%b]}' % b",".join([b"0.0123456"] * 512),
    "base64": b'{"embedding":"zczMPQAAgL8AAABA"}',
    "long base64": b'{"embedding":"%b"}' % (b"zczMPQAAgL8AAABA" * 40),
    "scores": b'{"score":"0.5","document":"a"}',
}
CHOICES: Final = {
    "empty": b"{},",
    "null members": b'{"delta":{"tool_calls":[{%b}]}}'
    % b",".join(b'"%x":null' % number for number in range(200)),
    "calls": b'{"delta":{"tool_calls":[{"function":{"arguments":{}}}]}}',
    "lists of content": b'{"delta":{"content":[{"text":"a"}]}}',
    "ends": b'{"delta":{"content":"a"},"finish_reason":"stop"}',
    "function calls": b'{"delta":{"function_call":{"name":"a"}}}',
}


def assert_short(run: Callable[[bytes], object], data: bytes) -> None:
    """Check that a function leaves the event loop after a short time."""
    seconds = best_seconds(run, data, TURN_SECONDS)
    assert seconds <= TURN_SECONDS, f"{seconds:.3f} s for {len(data)} bytes: {data[:80]!r}"


def repeated(unit: bytes, *, count: int, objects: int, members: int, size: int) -> bytes:
    """Return items up to each of these bounds, beyond which nothing is repaired in one turn."""
    most = (objects // unit.count(b"{"), members // max(1, unit.count(b":")), size // (len(unit) + 1))
    return b",".join([unit] * max(1, min(count, *most)))


@pytest.mark.parametrize("unit", ITEMS)
def test_a_body_that_is_repaired_in_one_turn(unit: str) -> None:
    """A longer one is repaired in a thread."""
    most = OBJECTS_MAX - 2
    items = repeated(ITEMS[unit], count=most, objects=most, members=MEMBERS_MAX, size=INLINE_BYTES_MAX - 100)
    request = b'{"tools":[],"stream":true,"messages":[%b]}' % items
    assert_short(lambda body: repair_request(ALL, Shape.CHAT, body), request)
    for shape, name in {Shape.CHAT: b"choices", Shape.EMBEDDINGS: b"data", Shape.RERANK: b"results"}.items():
        call = Call(
            shape, streams=None, inputs=items.count(b'"embedding"'), documents=OBJECTS_MAX, tools=True
        )
        assert_short(suppressed(partial(repair_response, ALL, call)), b'{"%b":[%b]}' % (name, items))


@pytest.mark.parametrize("count", [1, 40, EVENT_OBJECTS_MAX])
@pytest.mark.parametrize("unit", CHOICES)
def test_a_part_of_a_stream_is_repaired_in_one_turn(unit: str, count: int) -> None:
    bounds = {"objects": EVENT_OBJECTS_MAX - 1, "members": EVENT_MEMBERS_MAX, "size": EVENT_BYTES_MAX - 100}
    choices = repeated(CHOICES[unit], count=count, **bounds)
    part = next(cut_events(b'data: {"choices":[%b]}\n\n' % choices * PART_EVENTS))
    assert_short(lambda events: StreamRepairer(ALL, STREAM).feed(events), part)
    assert StreamRepairer(ALL, STREAM).feed(part) != part
