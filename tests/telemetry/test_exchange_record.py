"""The record of an exchange: the known fields make one line, and the first failure counts."""

import time

import msgspec
import pytest

from proxy.errors import (
    Aborted,
    BadResponse,
    InvalidRequest,
    NotFound,
    ProxyError,
    TokenUnavailable,
    Unauthenticated,
    UpstreamForbidden,
    UpstreamTimeout,
)
from proxy.telemetry import BodyLog, ExchangeRecord

ALWAYS = {"request_id", "method", "path", "status", "outcome", "duration_ms", "bytes_up", "bytes_down"}


def record() -> ExchangeRecord:
    """Return the record of a request that was just received."""
    return ExchangeRecord("id-1", "POST", "/v1/chat/completions")


def test_a_line_contains_only_known_fields() -> None:
    line = record().fields()
    assert set(line) == ALWAYS
    assert line["request_id"] == "id-1"
    assert line["method"] == "POST"
    assert line["path"] == "/v1/chat/completions"
    assert (line["bytes_up"], line["bytes_down"]) == (0, 0)


def test_values_set_during_the_exchange_are_in_the_line() -> None:
    found = {
        "caller": "tester",
        "endpoint": "chat/completions",
        "model": "m",
        "upstream": "chat",
        "events": 0,
        "generation": 7,
        "replays": 1,
        "upstream_request_id": "up-1",
        "reason": "words",
    }
    exchange = record()
    for name, value in found.items():
        setattr(exchange, name, value)
    line = exchange.fields()
    assert {name: line[name] for name in found} == found  # An event stream without events has 0.
    assert set(line) == ALWAYS | set(found)


def test_moments_are_milliseconds_since_the_request() -> None:
    exchange = record()
    exchange.started = time.monotonic() - 10.0
    exchange.headers_at = exchange.started + 0.0123456
    exchange.first_byte_at = exchange.started + 1.5
    line = exchange.fields()
    assert line["time_to_headers_ms"] == pytest.approx(12.35)
    assert line["time_to_first_byte_ms"] == pytest.approx(1500.0)
    assert line["duration_ms"] == pytest.approx(12_500, abs=2_500)


def test_its_clock_is_the_one_that_durations_are_counted_by() -> None:
    exchange = record()
    assert exchange.started <= exchange.now() <= time.monotonic()


def test_bytes_are_counted_as_they_are_sent() -> None:
    exchange = record()
    for chunk in (b"abc", b"", b"defgh"):
        exchange.count_bytes_sent(chunk)
    assert exchange.fields()["bytes_down"] == 8


def test_bytes_that_are_sent_are_kept_if_bodies_are_logged() -> None:
    kept = list[bytes]()

    class Keeping(BodyLog):
        def add_response(self, chunk: bytes) -> None:
            kept.append(chunk)

    exchange = record()
    exchange.bodies = Keeping(10)
    exchange.count_bytes_sent(b"abc")
    exchange.count_bytes_sent(b"def")
    assert kept == [b"abc", b"def"]


@pytest.mark.parametrize(
    "error", [BadResponse(reason="reset"), UpstreamTimeout(reason="silence"), TokenUnavailable(reason="down")]
)
def test_a_failure_has_its_code_and_reason(error: ProxyError) -> None:
    exchange = record()
    exchange.fail(error)
    line = exchange.fields()
    assert (line["outcome"], line["reason"]) == (error.code, error.reason)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidRequest("the path contains an empty segment"), "the path contains an empty segment"),
        (InvalidRequest("for the caller", reason="for the log"), "for the log"),
        (NotFound(), None),
        (Unauthenticated(reason="unknown key"), "unknown key"),
        (UpstreamForbidden("the words of an upstream"), None),
    ],
)
def test_the_message_to_the_caller_is_the_reason_if_the_request_is_wrong(
    error: ProxyError, reason: str | None
) -> None:
    exchange = record()
    exchange.fail(error)
    assert exchange.fields().get("reason") == reason


def test_the_first_failure_counts() -> None:
    exchange = record()
    exchange.fail(UpstreamTimeout(reason="silence"))
    exchange.fail(Aborted(reason="what followed from it"))
    line = exchange.fields()
    assert (line["outcome"], line["reason"]) == ("upstream_timeout", "silence")


def test_a_line_can_be_written_as_json() -> None:
    exchange = record()
    exchange.fail(BadResponse(reason="reset"))
    assert msgspec.json.decode(msgspec.json.encode(exchange.fields()))["outcome"] == BadResponse.code
