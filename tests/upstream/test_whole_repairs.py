"""Repairs of whole responses: in which forms they arrive, and how long ones are handled."""

import json
import threading

import pytest

from proxy.errors import InvalidResponse
from proxy.upstream import repaired
from proxy.upstream.repaired import INLINE_BYTES_MAX, RepairedStart, ResponsePrefix, ResponseRepairs
from proxy.wire.endpoints import OTHER, TABLE, Shape
from proxy.wire.repairs import REPAIRS, SETS, Call, EmbeddedError, Repairs, read_call, resolve
from proxy.wire.repairs.conversions import AnswerJoiner
from proxy.wire.repairs.deltas import BUILT_MAX
from proxy.wire.repairs.responses import repair_response
from proxy.wire.repairs.shallow_json import SHORT_BYTES
from tests.wire.repairs.streams import DONE, chunk, event

ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1.50,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi\n😀"}, "finish_reason": "stop"}],
}
CHAT = Call(Shape.CHAT)
STREAM = Call(Shape.CHAT, streams=True)


def prefix(
    call: Call, *pieces: bytes, repairs: str = "common", kind: bytes = b"application/json"
) -> ResponsePrefix:
    """Return the buffer of a response that arrives in these pieces."""
    held = ResponsePrefix(resolve([repairs]), call, kind)
    for piece in pieces:
        held.feed(piece)
    return held


async def started(held: ResponsePrefix) -> RepairedStart:
    """Return what the caller gets, which must not be an error."""
    start = await held.start(1 << 20)
    assert isinstance(start, RepairedStart)
    return start


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\r\n"], ids=["", "bom", "blank"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["lf", "crlf"])
async def test_a_whole_answer_to_a_stream_becomes_chunks(
    name: str, indent: int | None, before: bytes, newline: bytes
) -> None:
    """Most gateways write it on one line, which must not be taken for a line of a stream."""
    body = before + json.dumps(ANSWER, indent=indent).encode().replace(b"\n", newline)
    start = await started(prefix(STREAM, body, repairs=name))
    events = start.body.split(b"\n\n")
    assert start.is_events
    assert events[-2:] == [b"data: [DONE]", b""]
    assert all(event.count(b"\n") == 0 for event in events)
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events[:-2]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["Hi\n😀", None]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]
    assert "message" not in chunks[0]["choices"][0]


USAGE = {"prompt_tokens": 30, "completion_tokens": 50, "total_tokens": 80}
REPORTED = json.dumps({**ANSWER, "usage": USAGE}).encode()
CHUNKS = [chunk({"content": "Hi"}), chunk({}, "stop"), {"choices": [], "usage": USAGE}]
FORMS = {
    "whole": REPORTED,
    "in an envelope": b'{"code": 0, "data": %b}' % REPORTED,
    "lines": b"\n".join(json.dumps(each).encode() for each in CHUNKS),
    "a stream": b"".join(map(event, CHUNKS)) + DONE,
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("asked", [True, False], ids=["asked", "unasked"])
@pytest.mark.parametrize("streams", [True, False], ids=["stream", "answer"])
async def test_the_upstreams_usage_is_read_whatever_becomes_of_its_response(
    name: str, form: str, *, asked: bool, streams: bool
) -> None:
    call = Call(Shape.CHAT, streams=streams, usage_requested=asked)
    body = FORMS[form]
    held = prefix(call, body, b"", repairs=name)
    if form == "lines" and not streams:
        with pytest.raises(InvalidResponse):
            await held.start(1 << 20)
        return
    start = await started(held)
    if not streams:
        assert json.loads(start.body)["usage"] == USAGE
    if start.is_whole:
        assert start.usage == (30, 50)
    else:  # Then the caller gets the upstream's own bytes, from which the relay reads it.
        assert (start.body, start.usage) == (body, None)


@pytest.mark.parametrize("size", [0, INLINE_BYTES_MAX])
async def test_a_long_response_is_repaired_in_a_thread(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repairing it would block the event loop for seconds."""
    threads = list[int]()

    def repair(repairs: Repairs, call: Call, body: bytes) -> bytes | EmbeddedError:
        threads.append(threading.get_ident())
        return repair_response(repairs, call, body)

    monkeypatch.setattr(repaired, "repair_response", repair)
    body = json.dumps({**ANSWER, "padding": " " * size}).encode()
    start = await started(prefix(CHAT, body))
    assert json.loads(start.body) == json.loads(body)
    assert [thread == threading.get_ident() for thread in threads] == [size == 0]


@pytest.mark.parametrize("count", [1, SHORT_BYTES // 40])
async def test_a_stream_of_many_events_is_joined_in_a_thread(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Joining its values takes microseconds for a few bytes."""
    threads = set[int]()

    class Joiner(AnswerJoiner):
        def add(self, whole_events: bytes) -> EmbeddedError | None:
            threads.add(threading.get_ident())
            return super().add(whole_events)

        def close(self) -> bytes:
            threads.add(threading.get_ident())
            return super().close()

    monkeypatch.setattr(repaired, "AnswerJoiner", Joiner)
    events = event(chunk({"content": "a"})) * count + DONE
    start = await started(prefix(Call(Shape.CHAT, streams=False), events))
    assert json.loads(start.body)["choices"][0]["message"]["content"] == "a" * count
    assert [thread == threading.get_ident() for thread in threads] == [count == 1]


async def test_a_stream_that_holds_too_much_to_be_joined_is_an_error() -> None:
    items = event(chunk({"a": [{"index": index} for index in range(1_000)]}))
    held = prefix(Call(Shape.CHAT, streams=False), items * (BUILT_MAX // 1_000 + 1) + DONE)
    with pytest.raises(InvalidResponse) as raised:
        await held.start(1 << 20)
    assert "too much to be joined" in str(raised.value)


async def test_a_response_that_is_too_long_is_relayed_unrepaired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repaired, "WHOLE_BYTES_MAX", 100)
    body = json.dumps({"choices": [{"delta": {"content": "x" * 100}}]}).encode()
    held = prefix(CHAT, body[:50])
    assert not held.has_enough(1 << 20)
    held.feed(body[50:])
    assert held.has_enough(1 << 20)
    start = await started(held)
    assert (start.body, start.is_whole, start.is_events) == (body, False, False)


@pytest.mark.parametrize(
    ("call", "body"),
    [(STREAM, b'{"choices": [1'), (CHAT, b'data: {"choices": [1')],
    ids=["a whole answer to a stream", "a stream to a whole answer"],
)
def test_a_response_that_is_too_long_to_be_converted_is_an_error(
    call: Call, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repaired, "WHOLE_BYTES_MAX", 100)
    held = prefix(call, body)
    with pytest.raises(InvalidResponse):
        held.feed(b",1" * 50)


# --- what is left alone

TEXTS = {
    "data": b"data: was lost.\r\n\r\n",
    "id after a mark": b"\xef\xbb\xbfid: 5\r\nname: x\r\n\r\n",
    "invalid text": b"id: \xff\r\n\r\nx",
    "comment": b": a",
    "subtitles": b"1\n00:00:00,000 --> 00:00:02,000\nHi\n",
    "tracks": b"WEBVTT\n\n",
    "sound": b"[Music] Hi",
    "tags": b"<|zh|><|NEUTRAL|>Hi",
    "number": b"7",
    "quotes": b'"Hi"',
}


@pytest.mark.parametrize("label", [b"text/event-stream", b"text/plain"], ids=["events", "text"])
@pytest.mark.parametrize("body", [b'{"stream": true}', b"--b\r\n", b""], ids=["stream", "form", "none"])
def test_responses_without_a_shape_are_not_repaired(label: bytes, body: bytes) -> None:
    """A file may begin like events, and a stream of another API has other rules."""
    for endpoint in (each for each in (*TABLE, OTHER) if each.shape is None):
        repairs = ResponseRepairs(resolve(REPAIRS), read_call(endpoint.shape, body))
        assert not repairs, endpoint.name
        for method in ("GET", "POST"):
            assert repairs.beginning(method, 200, [(b"content-type", label)]) is None, endpoint.name


@pytest.mark.parametrize("shape", [Shape.TRANSCRIPTION, Shape.TRANSLATION])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", [b"text/plain; charset=utf-8", b"text/vtt"], ids=["plain", "vtt"])
async def test_a_transcription_as_text_keeps_its_bytes_and_its_label(
    shape: Shape, text: str, kind: bytes
) -> None:
    """The request is a form, which does not show what the caller asked for."""
    for name in SETS:
        held = prefix(read_call(shape, b"--b\r\n"), TEXTS[text], b"", repairs=name, kind=kind)
        start = await started(held)
        assert (start.body, start.is_events, start.content_type) == (TEXTS[text], False, None), name


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html>", b"\n<HTML>", b"<!-- a -->\n<body >", b"<?xml version='1.0'?>"]
)
async def test_a_page_is_no_transcription(page: bytes) -> None:
    with pytest.raises(InvalidResponse, match="HTML"):
        await prefix(Call(Shape.TRANSCRIPTION), page, b"", kind=b"text/plain").start(1 << 20)


@pytest.mark.parametrize("shape", [Shape.CHAT, Shape.EMBEDDINGS, Shape.RERANK, Shape.TRANSCRIPTION])
@pytest.mark.parametrize("kind", [b"text/plain", b"application/octet-stream"], ids=["text", "bytes"])
async def test_json_with_another_label_is_labelled(shape: Shape, kind: bytes) -> None:
    for body in (b'{"text": "Hi"}', b'\n {"data": []}', b'[{"index": 0}]'):
        start = await started(prefix(Call(shape), body, repairs="label_answer", kind=kind))
        assert (start.body, start.content_type) == (body, b"application/json")


async def test_only_json_is_labelled_as_json() -> None:
    for body in (*TEXTS.values(), b"<html>", b"", b"{cut", b'[{"a": 1}'):
        start = await started(prefix(CHAT, body, repairs="label_answer", kind=b"text/plain"))
        assert start.content_type != b"application/json", body
