"""Secrets are masked in the events that report an error, and no other event changes."""

import pytest

from proxy.wire.error_events import redact_errors, redact_message
from proxy.wire.repairs.shallow_json import ITEMS_MAX

SECRET = b"secret-token"
MASK = b"*" * len(SECRET)


def mask(data: bytes) -> bytes:
    return data.replace(SECRET, MASK)


TEXTS = [
    b'data: {"choices":[{"delta":{"content":"no error: secret-token"},"index":0}],"error":null}\n\n',
    b'data: {"choices":[{"delta":{"content":"error"}}],"model":"secret-token","errors":[]}\r\n\r\n',
    b'event: message\ndata: {"type":"response.output_text.delta","delta":"error secret-token"}\n\n',
    b'data: {"type":"response.completed","response":{"error":null,"status":"completed","output":'
    b'[{"content":[{"text":"error secret-token"}]}]}}\n\n',
]
ERRORS = [
    b'data: {"error":{"message":"secret-token"},"choices":[]}\n\n',
    b'data: {"error_code":1,"error_msg":"secret-token"}\n\n',
    b'event: error\ndata: {"message":"secret-token"}\n\n',
    b'event: response.failed\r\ndata: {"response":{"error":{"message":"secret-token"}}}\r\n\r\n',
    b'data: {"object":"error","message":"secret-token"}\n\n',
    b'data: {"type":"response.failed","message":"an error: secret-token"}\n\n',
    b'data: {"choices":[{"delta":{"content":""},"finish_reason":"error","m":"secret-token"}]}\n\n',
    b'data: {"choices":[{"error":{"message":"secret-token"}}]}\n\n',
    b'data: {"type":"response.done","response":{"status":"failed","status_details":{"error":"secret-token"}}}'
    b"\n\n",
    b"data: error: secret-token\n\n",
    b": error: secret-token\n\n",
    b"error: secret-token\n\n",
    b'data: {"choices":[' + b"1," * ITEMS_MAX + b'1],"error":"secret-token"}\n\n',
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("error", ERRORS)
def test_only_the_events_that_report_an_error_are_masked(text: bytes, error: bytes) -> None:
    assert redact_errors(text + error + text, mask) == text + mask(error) + text


def test_events_without_a_secret_are_not_parsed() -> None:
    events = b'data: {"error": 1}\n\n' * 3
    assert redact_errors(events, mask) is events


def test_many_events_without_an_error_are_kept() -> None:
    text, error = b'data: {"text":"secret-token"}\n\n', ERRORS[0]
    assert redact_errors(text * 1000 + error, mask) == text * 1000 + mask(error)


@pytest.mark.parametrize(
    "message",
    [
        b'{"type":"response.text.delta","delta":"no error, secret-token"}',
        b'{"type":"response.done","response":{"status":"completed","output":["error secret-token"]}}',
        b'{"type":"session.created","secret":"secret-token"}',
    ],
)
def test_a_message_that_reports_no_error_does_not_change(message: bytes) -> None:
    assert redact_message(message, mask) is message


@pytest.mark.parametrize(
    "message",
    [
        b'{"type":"error","error":{"message":"secret-token"}}',
        b'{"type":"conversation.item.input_audio_transcription.failed","error":{"message":"secret-token"}}',
        b'{"type":"response.done","response":{"status":"failed","status_details":{"error":"secret-token"}}}',
        b"error secret-token",
    ],
)
def test_a_message_that_reports_an_error_is_masked(message: bytes) -> None:
    assert redact_message(message, mask) == mask(message)
