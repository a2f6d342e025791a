"""Deltas from the streams of many vendors."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.chat.deltas import EVENT_BYTES_MAX, Delta, DeltaReader, EventSplitter, Finish
from proxy.chat.notices import Failure
from proxy.errors import Draining, ProxyError, UpstreamTimeout
from proxy.wire.error_envelope import error_event
from proxy.wire.event_stream import END_MARKER

LINES = st.sampled_from(
    [
        *(
            b"data: a",
            b"data:b",
            b"data:  c",
            b"data",
            b"data:",
            b"",
            b"",
            b": ping",
            b"event: x",
            b"id: 1",
            b"retry:5",
        ),
        *(b"data: [DONE]", b"dat", b"\xef\xbb\xbfdata: d", b"other: data: e", "data: 你好".encode()),
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
TABLE = "a,b,c\n" * 30_000


def told(stream: bytes) -> list[bytes]:
    """Apply the same rules to a whole stream at once, independently of the code under test."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    payloads = []
    for block in (text + b"\n\n").split(b"\n\n"):
        lines = [line.partition(b":") for line in block.split(b"\n")]
        data = b"\n".join(value.removeprefix(b" ") for name, _, value in lines if name == b"data")
        if data.strip():
            payloads.append(data)
    return payloads


def split(stream: bytes, sizes: list[int]) -> list[bytes]:
    """Return the payloads of a stream that arrives in chunks of these sizes, which repeat."""
    splitter = EventSplitter()
    payloads: list[bytes] = []
    at = turn = 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        payloads += splitter.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    return payloads + splitter.flush()


@given(st.lists(st.tuples(LINES, ENDS), max_size=20), st.lists(st.integers(1, 7), min_size=1, max_size=5))
@settings(max_examples=300)
def test_payloads_do_not_depend_on_how_the_bytes_were_cut(
    lines: list[tuple[bytes, bytes]], sizes: list[int]
) -> None:
    stream = b"".join(line + end for line, end in lines)
    assert split(stream, sizes) == told(stream)


def test_an_event_is_returned_after_its_blank_line() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data:{}\r\n\r") == [b"{}"]
    assert splitter.feed(b"\ndata: [DONE]\n") == []
    assert splitter.feed(b"") == []
    assert splitter.feed(b"\n") == [END_MARKER]


def test_an_endless_event_is_rejected() -> None:
    splitter = EventSplitter()
    with pytest.raises(ValueError, match="too large"):
        splitter.feed(b"data: " + b"x" * EVENT_BYTES_MAX)


@pytest.mark.parametrize("line", [b"data\n", b"data:\n", b"data: \n"])
def test_an_event_of_empty_lines_takes_no_more_memory_than_its_bytes(line: bytes) -> None:
    splitter = EventSplitter()
    lines = line * (64 * 1024)
    tracemalloc.start()
    try:
        splitter.feed(lines)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 2 * len(lines) // len(line)


def read(*payloads: object) -> list[Delta | Failure | Finish]:
    """Return the deltas of an answer with these payloads."""
    reader = DeltaReader()
    said = [event for payload in payloads for event in reader.read(json.dumps(payload).encode())]
    return said + list(reader.finish())


def chunk(finish_reason: object = None, **delta: object) -> dict[str, Any]:
    """Return a chunk with one delta."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def texts(events: list[Delta | Failure | Finish]) -> dict[str, str]:
    """Return the joined text of each kind."""
    joined = {"reasoning": "", "answer": ""}
    for event in events:
        assert isinstance(event, Delta)
        joined[event.kind] += event.text
    return joined


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "想"},
        {"reasoning": "想", "content": ""},
        {"reasoning": "想", "reasoning_content": "想", "content": None},
        {"reasoning_content": None, "reasoning": "想"},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "想"}]}]},
        {"content": [{"type": "thinking", "thinking": "想"}]},
        {"content": [{"type": "reasoning", "text": "想"}]},
        {"content": "<think>想</think>"},
        {"content": "\n<think>\n想"},
    ],
)
def test_reasoning_is_separated_from_the_answer(delta: dict[str, object]) -> None:
    assert read(chunk(**delta)) == [Delta("reasoning", "想")]


@pytest.mark.parametrize(
    "payload",
    [
        chunk(content="答"),
        chunk(content=["答"]),
        chunk(content=[{"type": "text", "text": "答"}, {"type": "image_url", "image_url": {"url": "x"}}]),
        chunk(refusal="答"),
        {"choices": [{"message": {"content": "答"}}]},
        {"choices": [{"text": "答"}]},
        {"choices": [{"index": None, "delta": {"content": "答"}}]},
        {"choices": [{"index": 1, "delta": {"content": "另"}}, {"index": 0, "delta": {"content": "答"}}]},
        {"code": 0, "message": "Success", "sid": "cha1", **chunk(content="答")},
        {"result": "答", "is_end": False},
    ],
)
def test_the_answer_is_read_in_many_shapes(payload: dict[str, object]) -> None:
    assert read(payload) == [Delta("answer", "答")]


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [None, 1]},
        {"choices": [{}]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": None, "role": "assistant"}, "index": None}]},
        {"choices": [{"delta": {"content": {"a": 1}, "reasoning": 5}, "finish_reason": ""}]},
        {"choices": [{"delta": {"content": [{"type": ["x"], "text": {}}], "tool_calls": {"id": 1}}}]},
        {"choices": [{"index": [0], "delta": {"content": "x"}}]},
        {"choices": [], "usage": {"total_tokens": 5}},
        {"error": None, "code": 0, "message": "Success"},
        chunk(reasoning_content="\n\n"),
        chunk(content="<think>\n\n</think>\n\n"),
    ],
)
def test_payloads_without_text_give_no_deltas(payload: dict[str, object]) -> None:
    assert read(payload) == []


@pytest.mark.parametrize("data", [b"", b"  ", END_MARKER, b" [DONE] "])
def test_the_end_marker_yields_nothing(data: bytes) -> None:
    assert DeltaReader().read(data) == []


@pytest.mark.parametrize("data", [b"{", b"[]", b"1", b"\xff", b'{"a": NaN}', b"[" * 100_000, b"data: {}"])
def test_a_payload_must_be_a_json_object(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        DeltaReader().read(data)


NAMES = """
choices delta content text type index error code message header finish_reason base_resp reasoning result
errors Response
"""
VALUES = st.none() | st.booleans() | st.integers(0, 20_000) | st.text(max_size=5)
JSON = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=4)
    ),
)


@given(JSON)
@settings(max_examples=300)
def test_any_json_is_parsed_or_rejected(payload: object) -> None:
    reader = DeltaReader()
    try:
        events = reader.read(json.dumps(payload).encode())
    except ValueError:
        assert not isinstance(payload, dict)
    else:
        assert all(isinstance(event, Delta | Failure | Finish) for event in events)


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "what_is_new"])
def test_a_finish_reason_flushes_the_text(reason: str) -> None:
    assert read(chunk(content="a <"), chunk(reason, content="b")) == [
        Delta("answer", "a "),
        Delta("answer", "<b"),
        Finish(reason),
    ]
    assert read(chunk(reason, content="c <t")) == [
        Delta("answer", "c "),
        Delta("answer", "<t"),
        Finish(reason),
    ]


SPARK_ERRORS = [
    {
        "error": {
            "message": "m (sid: cha000)",
            "type": "invalid_request_error",
            "param": None,
            "code": "10014",
        }
    },
    {"error": {"code": 10014, "message": "m"}},
    {"code": 10014, "message": "m", "sid": "cha000"},
    {"code": 10014, "msg": "m", "Sid": "cha000", "timeStamp": 1},
    {"header": {"code": 10014, "message": "m", "sid": "cha000", "status": 2}},
    {"code": 10014, "message": "m", "sid": "cha000", **chunk(content="")},
]


@pytest.mark.parametrize("payload", SPARK_ERRORS)
@pytest.mark.parametrize("code", [10013, 10014, 10019, 10021])
def test_a_safety_check_ends_the_answer_after_its_text(payload: dict[str, object], code: int) -> None:
    payload = json.loads(json.dumps(payload).replace("10014", str(code)))
    said, failure = read(chunk(content="说到"), payload)
    assert said == Delta("answer", "说到")
    assert isinstance(failure, Failure)
    assert "安全审核" in failure.notice.text
    assert failure.code == "content_filter"


@pytest.mark.parametrize("reason", ["sensitive", "content_filter"])
def test_an_audit_may_come_as_a_finish_reason(reason: str) -> None:
    said, failure = read(chunk(reason, content="说到<"))[::2]
    assert said == Delta("answer", "说到")
    assert isinstance(failure, Failure)
    assert failure.code == "content_filter"


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"code": 10007, "message": "busy", "sid": "x"}, "较多"),
        ({"error": {"code": "11202", "message": "QPS"}}, "较多"),
        ({"code": 10012, "message": "m", "sid": "x"}, "暂时不可用"),
        ({"error": {"code": "10907", "message": "too many tokens"}}, "太长"),
        ({"code": 10003, "message": "m"}, "无法处理"),
        ({"error": {"code": "11200", "message": "m"}}, "额度"),
        ({"error": {"code": "11201", "message": "daily"}}, "额度"),
        (
            {"error": {"message": "m", "type": "invalid_request_error", "code": "context_length_exceeded"}},
            "太长",
        ),
        ({"error": {"message": "m", "type": "rate_limit_error", "code": None}}, "较多"),
        ({"error": "plain words"}, "暂时不可用"),
        ({"error": {"code": "1301", "message": "m"}}, "安全审核"),
        ({"error": {"code": "1302", "message": "m"}}, "较多"),
        ({"error": {"code": "1113", "message": "m"}}, "额度"),
        ({"error_code": 336003, "error_msg": "m", "id": "as-1"}, "无法处理"),
        ({"error_code": 18, "error_msg": "m"}, "较多"),
        ({"base_resp": {"status_code": 1027, "status_msg": "m"}, "choices": None}, "安全审核"),
        ({"base_resp": {"status_code": 1002, "status_msg": "m"}, **chunk()}, "较多"),
        ({"output_sensitive": True, **chunk()}, "安全审核"),
        ({"Response": {"Error": {"Code": "LimitExceeded", "Message": "m"}, "RequestId": "r"}}, "暂时不可用"),
        ({"code": "DataInspectionFailed", "message": "m", "request_id": "r"}, "安全审核"),
        ({"error": {"code": "data_inspection_failed", "message": "m"}, "request_id": "r"}, "安全审核"),
        (chunk("network_error"), "暂时不可用"),
        (chunk("insufficient_system_resource"), "较多"),
    ],
)
def test_errors_in_a_200_are_explained_to_the_visitor(payload: dict[str, object], words: str) -> None:
    (failure,) = read(payload)
    assert isinstance(failure, Failure)
    assert words in failure.notice.text


@pytest.mark.parametrize(
    ("error", "told"),
    [(UpstreamTimeout(), "timed_out"), (Draining(), "restarting")],
    ids=["timeout", "drain"],
)
def test_an_error_of_the_relay_is_explained_too(error: ProxyError, told: str) -> None:
    splitter, reader = EventSplitter(), DeltaReader()
    (payload,) = splitter.feed(error_event(error.envelope()))
    (failure,) = reader.read(payload)
    assert isinstance(failure, Failure)
    assert (failure.notice.code, failure.code) == (told, error.code)


@given(st.text(max_size=30), st.sampled_from(SPARK_ERRORS))
@settings(max_examples=50)
def test_no_vendor_message_reaches_the_visitor(secret: str, payload: dict[str, object]) -> None:
    told = json.loads(json.dumps(payload).replace(': "m', ": " + json.dumps("cha9 " + secret)[:-1]))
    (failure,) = [event for event in read(told) if isinstance(event, Failure)]
    assert "cha" not in failure.notice.text
    assert [failure] == [event for event in read(payload) if isinstance(event, Failure)]


@given(st.data())
@settings(max_examples=200)
def test_think_tags_may_straddle_deltas(data: st.DataObject) -> None:
    words = st.text(alphabet="ab<>/think \n你", max_size=6).filter(lambda text: "think>" not in text)
    thought, answer = data.draw(words) + "想", "答" + data.draw(words)
    content = f"<think>{thought}</think>{answer}"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=10)))
    parts = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    assert texts(read(*(chunk(content=part) for part in parts))) == {
        "reasoning": thought.lstrip(" \n"),
        "answer": answer,
    }


@pytest.mark.parametrize(
    ("content", "reasoning", "answer"),
    [
        ("a<think>b</think>c", "b", "ac"),
        ("用 `<think>` 标签", "", "用 `<think>` 标签"),
        ("想完</think>答", "", "想完答"),
        ("<think>未完", "未完", ""),
        ("<thinking>x", "", "<thinking>x"),
        ("<think>a<think>b</think>c", "a<think>b", "c"),
        ("<think>a`</think>c", "a`", "c"),
        ("1 < 2 <", "", "1 < 2 <"),
    ],
)
def test_think_tags_are_read(content: str, reasoning: str, answer: str) -> None:
    for parts in ([content], list(content)):
        assert texts(read(*(chunk(content=part) for part in parts))) == {
            "reasoning": reasoning,
            "answer": answer,
        }


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": TABLE}},
        {"delta": {"content": TABLE}},
        {"message": {"content": [{"type": "text", "text": TABLE}]}},
        {"text": TABLE},
        {"message": {"content": TABLE}, "logprobs": {"content": [[]] * 60_000}},
    ],
)
def test_a_long_answer_full_of_commas_is_read(choice: dict[str, Any]) -> None:
    payload = json.dumps({"choices": [{"index": 1}, {"index": 0, **choice}]}).encode()
    assert DeltaReader().read(payload) == [Delta("answer", TABLE)]


def test_an_answer_of_too_many_parts_is_rejected() -> None:
    payload = json.dumps({"choices": [{"message": {"content": [{"text": "a"}] * 60_000}}]}).encode()
    with pytest.raises(ValueError, match="holds too much"):
        DeltaReader().read(payload)
