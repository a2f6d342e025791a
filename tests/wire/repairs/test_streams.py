"""Streams: events that no repair changes are not parsed, and nothing is delayed."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.repairs import REPAIRS, Call, EmbeddedError, Repairs, StreamRepairer, resolve
from proxy.wire.repairs import streams as under_test
from proxy.wire.repairs.framing import LINES_MAX, PART_EVENTS
from proxy.wire.repairs.shallow_json import open_object
from proxy.wire.repairs.streams import EVENT_BYTES_MAX
from tests.integration.ragflow import RETRIED, kind_of
from tests.wire.repairs.streams import DONE, EVENTS, JSON, chunk, cut, event, payloads, repair

CHAT = Shape.CHAT
EVERYTHING = resolve(REPAIRS)
HELLO = event(chunk({"content": "你好"}))
SPARK = event({"code": 10013, "message": "audit (sid: cha1)", "sid": "cha1"})


def repairer(repairs: Repairs = EVERYTHING, shape: Shape | None = CHAT) -> StreamRepairer:
    return StreamRepairer(repairs, Call(shape, usage_requested=False))


def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes | None]:
    """Return the list of payloads that are parsed from now on."""
    seen: list[bytes | None] = []

    def count(written: bytes | None) -> object:
        seen.append(written)
        return open_object(written)

    monkeypatch.setattr(under_test, "open_object", count)
    return seen


# --- untouched


@pytest.mark.parametrize(
    "piece",
    [
        HELLO,
        b": keep-alive\n\n",
        HELLO + b": ping\n\n" + HELLO + DONE,
        b'data:{"choices":[{"delta":{"content":null,"role":"assistant"},"finish_reason":null}],"usage":null}\n\n',
        b"",
    ],
)
def test_chunks_with_only_text_are_forwarded_without_opening_their_members(
    piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = opened(monkeypatch)
    assert repairer().feed(piece) == piece
    assert seen == []


def test_of_many_events_only_those_with_more_than_text_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = opened(monkeypatch)
    ending = event(chunk({}, "stop"))
    assert repairer().feed(HELLO * 50 + ending + HELLO) == HELLO * 50 + ending + HELLO
    assert [bytes(item) for item in seen if item and b"choices" in bytes(item)] == [ending[6:-2]]


@given(
    st.lists(JSON.map(event) | st.binary(max_size=20), max_size=6), st.lists(st.integers(0, 20), max_size=3)
)
def test_without_repairs_any_bytes_pass(events: list[bytes], at: list[int]) -> None:
    none = StreamRepairer(Repairs(), Call(CHAT, usage_requested=False))
    assert none.first_error(b"".join(events)) is None
    for piece in cut(events, at):
        assert none.feed(piece) is piece
    assert none.finish() == b""


@given(st.lists(JSON.map(event), max_size=6), st.lists(st.integers(0, 20), max_size=3))
def test_events_of_another_endpoint_pass(events: list[bytes], at: list[int]) -> None:
    other = repairer(shape=None)
    assert b"".join(map(other.feed, cut(events, at))) == b"".join(events)


@given(st.lists(st.sampled_from([b"data: {}", b"data:[1]", b": c", b"\xe4\xbd\xa0"]), max_size=8))
def test_line_ends_stay_without_lf_newlines(lines: list[bytes]) -> None:
    stream = b"".join(line + b"\r\n\r\n" for line in lines)
    assert repair(["open_webui"], stream) == stream


def test_an_unchanged_event_keeps_its_bytes_next_to_a_changed_one() -> None:
    odd = b'data:{"choices" : [{"delta":{"content":"\\u4f60" }}], "n":1.0e-05}\r\n\r\n'
    changed = b'data: {"choices":[{"delta":null}],"n":1.0e-05}\n\n'
    assert repair(["ragflow"], odd + changed + odd) == odd + changed.replace(b"null", b"{}") + odd


# --- without delay


@given(EVENTS, st.booleans())
def test_each_event_is_returned_as_soon_as_it_is_whole(events: list[bytes], usage_requested: bool) -> None:  # noqa: FBT001
    one_by_one = StreamRepairer(EVERYTHING, Call(CHAT, usage_requested=usage_requested))
    joined = StreamRepairer(EVERYTHING, Call(CHAT, usage_requested=usage_requested))
    assert b"".join(map(one_by_one.feed, events)) == joined.feed(b"".join(events))
    assert one_by_one.finish() == joined.finish()


@given(EVENTS, st.booleans())
def test_repairing_twice_is_repairing_once(events: list[bytes], usage_requested: bool) -> None:  # noqa: FBT001
    once = repair([*REPAIRS], *events, usage_requested=usage_requested)
    assert repair([*REPAIRS], once, usage_requested=usage_requested) == once


@given(st.lists(JSON.map(event) | st.binary(max_size=30).map(lambda line: line + b"\n\n"), max_size=6))
def test_any_stream_is_repaired_without_an_exception(events: list[bytes]) -> None:
    stream = b"".join(events)
    with suppress(InvalidResponse):
        repairer().first_error(stream)
    once = repair([*REPAIRS], *events)
    assert repair([*REPAIRS], once) == once


# --- errors


@pytest.mark.parametrize(
    ("beginning", "error"),
    [
        (
            event({"error": {"message": "busy", "type": "server_error", "code": 503}}),
            EmbeddedError(503, "busy", "server_error", "503"),
        ),
        (
            b": wait\n\ndata:\n\nevent: error\n" + SPARK,
            EmbeddedError(400, "audit", "invalid_request_error", "content_filter"),
        ),
        (
            b'{"error": {"message": "no", "code": 404}}\n\n',
            EmbeddedError(404, "no", "invalid_request_error", "404"),
        ),
    ],
)
def test_an_error_at_the_beginning_is_found_before_anything_is_sent(
    beginning: bytes, error: EmbeddedError
) -> None:
    assert repairer().first_error(beginning) == error


@pytest.mark.parametrize(
    "beginning",
    [b"", b": wait\n\n", HELLO + SPARK, event({"code": 0, "message": "ok"}), b"data: null\n\n"],
)
def test_any_other_beginning_is_not_an_error(beginning: bytes) -> None:
    assert repairer().first_error(beginning) is None


@pytest.mark.parametrize(
    "beginning",
    [
        b"<html>\n\n",
        b"Service Unavailable\r\n\r\n",
        b"data: \xe4\xbd\n\n",
        b"data: upstream exploded\n\n",
        b'data: {"choices": [\n\n',
        DONE,
        b": wait\n\n" + DONE,
    ],
)
def test_a_beginning_without_an_answer_is_an_invalid_response(beginning: bytes) -> None:
    with pytest.raises(InvalidResponse):
        repairer().first_error(beginning)


def test_checking_the_beginning_changes_nothing() -> None:
    stream = event(chunk({"tool_calls": [{"id": "a", "function": {"name": "f"}}]}))
    looked = repairer()
    looked.first_error(stream)
    assert looked.feed(stream) == repairer().feed(stream)


def test_a_vendors_error_in_the_middle_becomes_openais() -> None:
    told = payloads(repair(["vendor_errors"], HELLO + SPARK))
    assert told[0] == chunk({"content": "你好"})
    assert told[1] == {
        "error": {
            "message": "the response was cut off, its end is invalid: audit",
            "type": "invalid_request_error",
            "param": None,
            "code": "content_filter",
        }
    }


WORDS = ["rate limit hit", "Error 429", "Too many requests", "server error", "503", "unavailable", "boom"]
ERRORS: dict[str, Callable[[str], dict[str, Any]]] = {
    "OpenAI's": lambda words: {"error": {"message": words, "type": "server_error", "x": 1.50}},
    "OpenAI's with empty choices": lambda words: {"error": {"message": words}, "choices": []},
    "only msg": lambda words: {"error": {"msg": words}},
    "a text": lambda words: {"error": words},
    "a vendor's": lambda words: {"code": 10012, "message": words},
    "next to text": lambda words: chunk({"content": "x"}, "error", error={"message": words}),
    "MiniMax's next to text": lambda words: chunk(
        {"content": "x"}, base_resp={"status_code": 1002, "status_msg": words}
    ),
}


@pytest.mark.parametrize("name", ["ragflow", "common"])
@pytest.mark.parametrize("shape", ERRORS)
@pytest.mark.parametrize("words", WORDS)
def test_an_error_after_text_does_not_make_ragflow_retry(words: str, shape: str, name: str) -> None:
    for before in (HELLO, b""):
        told = payloads(repair([name], before + event(ERRORS[shape](words))))
        errors = [each["error"]["message"] for each in told if "error" in each]
        assert len(errors) == 1
        if told[:-1]:
            assert kind_of(errors[0]) not in RETRIED
        else:
            assert errors == [words]


def test_an_error_after_text_keeps_its_other_members() -> None:
    own = {"message": "Rate limit reached", "type": "tokens", "n": 1}
    told = payloads(repair(["ragflow"], HELLO + event({"error": own, "id": "c"})))[1]
    said = told["error"]["message"]
    assert said == "the response was cut off, its end is invalid: the upstream reports an overload"
    assert told == {"error": {**own, "message": said}, "id": "c"}


def test_the_text_of_a_chunk_precedes_the_error_in_it() -> None:
    refused = chunk({"content": "x"}, base_resp={"status_code": 1027, "status_msg": "sensitive"})
    told = payloads(repair(["vendor_errors"], event(refused)))
    assert told[0] == chunk({"content": "x"})
    assert told[1]["error"]["code"] == "content_filter"


def test_openais_own_error_in_the_middle_passes_and_a_bare_text_gets_its_shape() -> None:
    own = event({"error": {"message": "boom", "type": "server_error"}})
    assert repair(["ragflow"], HELLO + own) == HELLO + own
    told = payloads(repair(["true_errors"], event({"error": "boom"})))
    assert told == [{"error": {"message": "boom", "type": "upstream_error", "param": None, "code": None}}]


def test_an_event_that_is_not_utf8_ends_the_stream_with_an_error() -> None:
    repairing = repairer(resolve(["utf8"]))
    out = repairing.feed(HELLO + b'data: {"choices":[{"delta":{"content":"\xe4\xbd"}}]}\n\n' + HELLO)
    assert out.startswith(HELLO)
    assert payloads(out)[1]["error"]["code"] == "upstream_aborted"
    assert len(payloads(out)) == 2
    assert repairing.ended
    assert repairing.feed(HELLO + DONE) == b""
    assert repairing.finish() == b""


def test_valid_utf8_is_the_same_object() -> None:
    assert repairer(resolve(["utf8"])).feed(HELLO) is HELLO


@pytest.mark.parametrize("written", ["null", "false", "0", '""', "{}"])
def test_a_stream_whose_chunks_deny_an_error_still_needs_its_end(written: str) -> None:
    denied = event(chunk({"content": "a"}) | {"error": json.loads(written)})
    assert repair(["accept_missing_end"], denied).endswith(DONE)
    ping = event({"choices": [], "error": json.loads(written)})
    assert repair(["drop_unasked_chunks"], denied + ping) == denied


# --- found by the corpus


def test_a_byte_order_mark_hides_no_event_and_is_dropped() -> None:
    mark, first = b"\xef\xbb\xbf", event(chunk(None))
    assert repair(["fill_delta"], mark + first) == repair(["fill_delta"], first)
    assert repair(["dify"], mark + b"event: message\n" + HELLO, mark + HELLO) == HELLO + mark + HELLO
    assert repairer().first_error(mark + SPARK) == repairer().first_error(SPARK)


def test_an_error_without_a_message_gets_one() -> None:
    for error in ({"type": "server_error"}, {"message": None}, {"message": "", "code": 1}, {"msg": "busy"}):
        told = payloads(repair(["true_errors"], HELLO + event({"error": error})))[1]["error"]
        assert told["message"].endswith(f": {error.get('msg', 'the upstream failed')}")


def test_a_comment_stays_a_separate_block_when_the_event_next_to_it_changes() -> None:
    both = resolve(["drop_event_lines", "fill_delta"])
    out = repairer(both).feed(b": wait\n" + event(chunk(None)))
    assert out.split(b"\n\n")[0] == b": wait"
    assert payloads(out) == [chunk({})]


def test_withheld_usage_does_not_join_an_event_without_a_blank_line() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    counted, bare = event(chunk({"content": "a"}, usage=usage)), event(chunk({"content": "b"}))
    for end in (b"\n\n", b"\n", b""):
        out = repair(["usage_once"], counted, bare.removesuffix(b"\n\n") + end, usage_requested=True)
        assert payloads(out)[1:] == [chunk({"content": "b"}), {**chunk({}), "choices": [], "usage": usage}]


# --- framing and ends


def test_events_without_blank_lines_between_them_become_events() -> None:
    lines = [event(chunk({"content": word})).rstrip(b"\n") for word in "ab"]
    stream = b"\n".join([*lines, b"data: [DONE]"]) + b"\n\n"
    assert repair(["data_lines"], stream) == b"".join(line + b"\n\n" for line in lines) + DONE


def test_json_over_several_lines_becomes_one_line() -> None:
    stream = b'data: {"choices": [{"delta":\ndata:  {"content": "x"}}],\ndata: "n": 1.0e-05}\n\n'
    out = repair(["data_lines"], stream)
    assert out == b'data: {"choices":[{"delta":{"content":"x"}}],"n":1.0e-05}\n\n'


@pytest.mark.parametrize("end", [b"[done]", b"DONE", b'"[DONE]"', b" [DONE] ", b"[DONE]"])
def test_an_end_marker_is_written_as_clients_know_it(end: bytes) -> None:
    assert repair(["end_stream"], HELLO + b"data: " + end + b"\n\n") == HELLO + DONE


@pytest.mark.parametrize("last", [b"data: [DONE]", b"data: [DONE]\n", HELLO[:-2], HELLO[:-1]])
def test_the_last_event_gets_its_blank_line(last: bytes) -> None:
    assert repair(["end_stream"], HELLO, last).rstrip(b"\n") == HELLO + last.rstrip(b"\n")
    assert repair(["end_stream"], HELLO, last).endswith(b"\n\n")


def test_bytes_that_are_not_utf8_are_replaced_outside_of_the_answer() -> None:
    broken = b'data: {"model": "m\xe4\xbd", "choices": [{"delta": {"content": "x"}}]}\n\n'
    assert repair(["utf8"], broken) == broken.replace(b"\xe4\xbd", "\ufffd".encode())


@pytest.mark.parametrize("bad", [b"data: upstream exploded\n\n", b'data: {"choices": [\n\n'])
def test_an_event_that_is_not_json_ends_the_stream_unless_it_had_ended(bad: bytes) -> None:
    told = payloads(repair(["true_errors"], HELLO + bad + HELLO))
    assert len(told) == 2
    assert told[1]["error"]["code"] == "upstream_aborted"
    ended = HELLO + event(chunk({}, "stop"))
    assert repair(["true_errors"], ended + bad + DONE) == ended + DONE


def test_a_stream_without_a_choice_is_an_error() -> None:
    for stream in (b": wait\n\n" + DONE, event({"choices": [], "usage": {}}) + DONE):
        assert payloads(repair(["true_errors"], stream))[-1]["error"]["code"] == "upstream_aborted"


def test_repairs_of_a_long_stream_take_linear_time() -> None:
    """Ten thousand parts of tool calls with different ids would take minutes in quadratic time."""
    call = {"index": 0, "function": {"arguments": "x"}}
    piece = b"".join(event(chunk({"tool_calls": [{**call, "id": str(n)}]})) for n in range(500))
    stream = repairer()
    for _ in range(20):
        assert stream.feed(piece)


# --- what only Python reads, and events of many lines


@pytest.mark.parametrize("names", [["common"], ["ragflow"], ["dify"]], ids=str)
@pytest.mark.parametrize("half", ["a\ud83d", "\ude00b"], ids=ascii)
def test_half_of_an_escaped_character_is_forwarded(names: list[str], half: str) -> None:
    """Gateways in JavaScript cut texts inside a character. Such events were taken for pings."""
    cut_text = b"data: " + json.dumps(chunk({"content": half})).encode() + b"\n\n"
    assert repair(names, cut_text, event(chunk({}, "stop")), DONE).startswith(cut_text)


@pytest.mark.parametrize("names", [["common"], ["ragflow"], ["dify"]], ids=str)
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_chunk_with_a_number_that_json_forbids_is_kept_with_null(names: list[str], number: str) -> None:
    text = json.dumps(chunk({"content": "a"}, None, logprobs={"logprob": 0})).replace(
        '"logprob": 0', f'"logprob": {number}'
    )
    repaired = repair(names, f"data: {text}\n\n".encode(), event(chunk({}, "stop")), DONE)
    first = payloads(repaired)[0]
    assert first["choices"][0]["delta"]["content"] == "a"
    assert first["logprobs"] == {"logprob": None}


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("field", [b"data: ", b"data:"])
def test_a_long_stream_without_blank_lines_is_repaired_in_parts(newline: bytes, field: bytes) -> None:
    words = [chunk({"content": str(count)}) for count in range(3 * PART_EVENTS)]
    lines = [json.dumps(each).encode() for each in words] + [b"[DONE]"]
    stream = b"".join(field + line + newline for line in lines) + newline
    repairer = StreamRepairer(resolve(["common"]), Call(CHAT, streams=True))
    parts = list(repairer.feed_in_parts(stream))
    assert len(parts) == 4
    assert payloads(b"".join(parts)) == words


@pytest.mark.parametrize("line", [b"data:\n", b": c\n", b"a\n", b"data: {}\nid: 1\n", b'data: {"a":\n'])
@pytest.mark.parametrize("names", [["common"], ["ragflow"], ["dify"]], ids=str)
def test_an_event_of_too_many_lines_is_relayed_unrepaired(names: list[str], line: bytes) -> None:
    stream = line * (LINES_MAX + 1) + b"\n"
    assert repair(names, stream) == stream


@pytest.mark.parametrize("name", ["ragflow", "dify"])
def test_a_long_event_is_relayed_unrepaired(name: str) -> None:
    """An image is one: repairing it takes tens of milliseconds for each MiB, in the event loop."""
    image = '{"choices":[{"message":{"content":"%s"}}]}'
    end = 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    long, short = (f"data: {image % ('x' * size)}\n\n" for size in (EVENT_BYTES_MAX, EVENT_BYTES_MAX // 2))
    assert repair([name], (long + end).encode()) == (long + end).encode()
    assert b'"delta":{"content":"xxx' in repair([name], (short + end).encode())


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":[%b[]]}\n\n' % (b"[]," * 60_000),
        b'data: {"choices":[%b{}]}\n\n' % (b"{}," * 30_000),
        b"data: {%b}\n\n" % b",".join(b'"%d":1' % number for number in range(10_000)),
    ],
    ids=["values", "objects", "members"],
)
def test_an_event_that_holds_too_much_is_relayed_unrepaired(event: bytes) -> None:
    repairer = StreamRepairer(resolve(["ragflow"]), Call(CHAT, streams=True))
    assert repairer.first_error(event) is None
    assert repairer.feed(event) == event
    assert repairer.feed(b"data: [DONE]\n\n") == b"data: [DONE]\n\n"
