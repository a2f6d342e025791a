"""Which events of a stream are errors of the upstream's own, and their codes."""

import pytest

from proxy.wire.stream_errors import find_error_code

CONTENT = b'data: {"choices": [{"delta": {"content": "error"}}], "error": null}\n\n'


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (
            b'data: {"error": {"message": "m", "type": "server_error", "code": "overloaded"}}\n\n',
            "overloaded",
        ),
        (b'data: {"error": {"message": "m", "type": "server_error", "code": null}}\n\n', "server_error"),
        (b'data:{ "error":"x"}\r\n\r\n', "error"),
        (b'data: {"error": {"code": 429}}\n\n', "429"),
        (b'data: {"id": "c", "choices": [{"finish_reason": "error"}], "error": {"code": 502}}\n\n', "502"),
        (b'data: {"error":\ndata: {"code": "two_lines"}}\n\n', "two_lines"),
        (
            b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error"}}\n\n',
            "overloaded_error",
        ),
        (
            b'event: error\ndata: {"type": "error", "code": "server_error", "message": "m"}\n\n',
            "server_error",
        ),
        (b'data: {"type": "error", "message": "m"}\n\n', "error"),
        (b"event: error\r\ndata: overloaded\r\n\r\n", "error"),
        (b"event: error\ndata: {}\n\n", "error"),
        (
            b'event: response.failed\ndata: {"type": "response.failed", "response": '
            b'{"id": "r", "error": {"code": "server_error", "message": "m"}}}\n\n',
            "server_error",
        ),
    ],
)
def test_an_error_has_a_code(event: bytes, code: str) -> None:
    assert find_error_code(event) == code
    assert find_error_code(CONTENT + event + CONTENT) == code


@pytest.mark.parametrize(
    "event",
    [
        CONTENT,
        b"",
        b'data: {"choices": [{"delta": {"content": "{\\"error\\": {\\"code\\": 1}}"}}]}\n\n',
        b'data: {"choices": [{"delta": {"content": "x", "error": {"code": 1}}}]}\n\n',
        b'data: {"error": {}}\n\n',
        b'data: {"error": "cut\n\n',
        b'data: "error": 1\n\n',
        b'data: {"type": "response.completed", "response": {"error": null, "output": [{"error": "x"}]}}\n\n',
        b": error\n\n",
        b"data: event: error\n\n",
    ],
)
def test_other_events_are_no_errors(event: bytes) -> None:
    assert find_error_code(event) is None


def test_a_code_for_the_log_is_short_and_printable() -> None:
    assert find_error_code(b'data: {"error": {"code": "a\\n\\u001b[31mb"}}\n\n') == "a [31mb"
    assert find_error_code(b'data: {"error": {"code": "' + b"x" * 1000 + b'"}}\n\n') == "x" * 64


@pytest.mark.parametrize("error", [b"[%s[]]" % (b"[]," * 30_000), b'{"code":"c","a":"%s"}' % (b"x" * 70_000)])
def test_a_long_error_is_recorded_without_its_code(error: bytes) -> None:
    """Parsing it would block other requests; it is an error whatever it holds."""
    assert find_error_code(b'data: {"error":%b}\n\n' % error) == "error"
    assert find_error_code(b'data: {"type":"server_error","error":%b}\n\n' % error) == "server_error"
    assert find_error_code(b'event: error\ndata: {"code":%b}\n\n' % error) == "error"


def test_the_search_among_many_events_that_are_no_errors_ends() -> None:
    error = b'data: {"error":{"code":"c"}}\n\n'
    assert find_error_code(b'data: "error":1\n\n' * 999 + error) == "c"
    assert find_error_code(b'data: "error":1\n\n' * 1_000 + error) is None


def test_line_breaks_in_the_text_of_many_events_hide_no_error() -> None:
    text = b'data: {"choices":[{"delta":{"content":"\\n"}}]}\n\n'
    escaped = b'data: {"err\\u006fr":{"code":"b"}}\n\n'
    error = b'data: {"error":{"code":"c"}}\n\n'
    assert find_error_code(text * 5_000 + error) == "c"
    assert find_error_code(text * 999 + escaped + error) == "b"
    assert find_error_code(text * 1_000 + escaped + error) == "c"
