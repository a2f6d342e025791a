"""Errors of requests that the upstream rejects: its message is returned, whatever the form of the body."""

import pytest

from proxy.wire.error_envelope import MESSAGE_CHARACTERS_MAX, error_headers, forbidden_error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the upstream does not allow this request"),
        (b"no such model for you", "no such model for you"),
        (b'{"message": "no"}', "no"),
        (b'{"detail": "no"}', "no"),
        (b'{"code": 11, "msg": "no"}', "no"),
        (b'{"error": "no"}', "no"),
        (b'{"error": {"message": 7}, "detail": "no"}', "no"),
        (b'{"error": {"message": "no", "code": null}}', "no"),
        (b'{"other": "no"}', "the upstream does not allow this request"),
        (b"<html><h1>401</h1></html>", "the upstream does not allow this request"),
        (b"[" * 100_000, "[" * MESSAGE_CHARACTERS_MAX),
        (b"\xff\x00two\r\nlines", "\ufffd two lines"),
    ],
)
def test_the_message_is_that_of_the_upstream(body: bytes, message: str) -> None:
    error = forbidden_error(401, body)
    assert error.envelope()["error"]["message"] == message
    assert error.envelope()["error"]["code"] == error.code == "upstream_forbidden"
    assert error.status == 403


def test_members_of_the_upstream_stay_if_clients_can_read_them() -> None:
    error = forbidden_error(
        403, b'{"error": {"message": "no", "type": null, "param": {}, "code": 7, "innererror": {"a": 1}}}'
    )
    assert error.envelope()["error"] == {
        "message": "no",
        "type": "permission_error",
        "param": None,
        "code": "upstream_forbidden",
        "innererror": {"a": 1},
    }
    error = forbidden_error(403, b'{"error": {"message": "no", "type": "t", "param": "p"}}')
    assert error.envelope()["error"]["type"] == "t"
    assert error.envelope()["error"]["param"] == "p"


def test_the_headers_of_an_error_replace_ours_of_the_same_name() -> None:
    assert error_headers({"Retry-After": "5", "Cache-Control": "max-age=6"}) == [
        (b"content-type", b"application/json"),
        (b"cache-control", b"max-age=6"),
        (b"retry-after", b"5"),
    ]
    assert (b"cache-control", b"no-store") in error_headers({})
