"""Notices: which one a visitor sees for an error, without the words of the vendor."""

import json

import pytest

from proxy.chat import notices
from proxy.chat.notices import Notice, explain, find_failure, finish_failure
from proxy.errors import (
    Aborted,
    BadResponse,
    CircuitOpen,
    Draining,
    Overloaded,
    ProxyError,
    RateLimited,
    TokenRejected,
    TokenUnavailable,
    Unreachable,
    UpstreamForbidden,
    UpstreamTimeout,
)
from proxy.wire.repairs.shallow_json import open_object

ERRORS: list[tuple[ProxyError, Notice]] = [
    (Draining(), notices.RESTARTING),
    (UpstreamTimeout(), notices.TIMED_OUT),
    (Unreachable(), notices.UNREACHABLE),
    (UpstreamForbidden(), notices.FORBIDDEN),
    (TokenUnavailable(), notices.UNREACHABLE),
    (TokenRejected(), notices.UNREACHABLE),
    (CircuitOpen(), notices.UNREACHABLE),
    (Overloaded(), notices.OVERLOADED),
    (BadResponse(), notices.CUT_OFF),
    (Aborted(), notices.CUT_OFF),
]
by_class = pytest.mark.parametrize(
    ("error", "notice"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS]
)


@by_class
def test_an_error_of_an_exchange_has_its_notice(error: ProxyError, notice: Notice) -> None:
    assert explain(error) is notice
    assert explain(RateLimited()) is notices.OVERLOADED


@by_class
def test_an_error_of_our_own_has_the_same_notice_within_a_stream(error: ProxyError, notice: Notice) -> None:
    members = open_object(json.dumps(error.envelope()).encode())
    assert members is not None
    found = find_failure(members)
    assert found is not None
    assert found.notice is notice


def failure_code(payload: dict[str, object]) -> tuple[str, str | None] | None:
    """Return the codes of the failure in a payload: ours and the vendor's."""
    members = open_object(json.dumps(payload).encode())
    assert members is not None
    found = find_failure(members)
    return None if found is None else (found.notice.code, found.code)


@pytest.mark.parametrize(
    ("payload", "codes"),
    [
        ({"choices": [{"delta": {"content": "hi"}}]}, None),
        ({"choices": [], "output_sensitive": True}, ("unsafe", "content_filter")),
        ({"error": {"message": "no", "code": "content_filter"}}, ("unsafe", "content_filter")),
        (
            {"error": {"message": "no", "code": "context_length_exceeded"}},
            ("dialogue_too_long", "context_length_exceeded"),
        ),
        ({"error": {"message": "no", "code": Draining.code}}, ("restarting", Draining.code)),
        ({"error": {"message": "no", "code": "11201"}}, ("not_allowed", "11201")),
    ],
)
def test_an_error_in_a_payload_has_its_notice(
    payload: dict[str, object], codes: tuple[str, str | None] | None
) -> None:
    assert failure_code(payload) == codes


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("stop", None),
        ("length", None),
        ("tool_calls", None),
        ("sensitive", "unsafe"),
        ("CONTENT_FILTER", "unsafe"),
        ("insufficient_system_resource", "model_busy"),
        ("network_error", "unavailable"),
    ],
)
def test_a_finish_reason_may_be_a_failure(reason: str, code: str | None) -> None:
    found = finish_failure(reason)
    assert (None if found is None else found.notice.code) == code


def test_a_number_is_written_into_the_words_and_the_fields() -> None:
    notice = notices.PROMPT_TOO_LONG.with_number(9)
    assert notice.text == "问题太长，最多 9 个字。The question is too long: 9 characters at most."
    assert notice.fields == {"reason": "prompt_too_long", "number": 9}
    assert notices.BUSY.fields == {"reason": "busy"}
