"""Which responses count as a rejection of the token."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.upstream_credential import RejectionRules
from proxy.settings import Invalidation

JSON = [(b"Content-Type", b"application/json; charset=utf-8")]
BAIDU = {"status": 200, "path": "error_code", "in": [110, 111]}


def rules(*values: dict[str, Any]) -> RejectionRules:
    """Return rules as the settings read them."""
    return RejectionRules([Invalidation.model_validate(value) for value in values])


def refused(of: RejectionRules, status: int, headers: list[tuple[bytes, bytes]], body: Any = None) -> bool:
    """Return how the rules judge a response."""
    if of.match_head(status, headers):
        return True
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return of.need_body(status, headers) and of.match_body(status, headers, raw)


def test_a_status_alone_can_reject_a_token() -> None:
    of = rules({"status": 401})
    assert refused(of, 401, [])
    assert not refused(of, 403, [])
    assert not of.need_body(401, JSON)


def test_a_status_with_a_challenge() -> None:
    of = rules({"status": 401}, {"status": 403, "www_authenticate": "invalid_token"})
    challenge = b'Bearer realm="x", error="Invalid_Token"'
    assert refused(of, 403, [(b"WWW-Authenticate", challenge)])
    assert not refused(of, 403, [(b"www-authenticate", b'Bearer error="insufficient_scope"')])
    assert not refused(of, 403, [])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error_code": 110, "error_msg": "Access token invalid"}, True),
        ({"error_code": 111}, True),
        ({"error_code": 112}, False),
        ({"error_code": "110"}, False),
        ({"error_code": 110.0}, False),
        ({"error_code": True}, False),
        ({"choices": []}, False),
        ([110], False),
        (b"error_code: 110", False),
        (b"[" * 100_000, False),
        (b"", False),
    ],
)
def test_an_error_inside_a_200(body: Any, expected: bool) -> None:  # noqa: FBT001
    assert refused(rules(BAIDU), 200, JSON, body) is expected


def test_a_body_is_inspected_only_if_a_rule_and_its_type_require_it() -> None:
    of = rules({"status": 401}, BAIDU)
    assert of.need_body(200, JSON)
    assert of.need_body(200, [(b"content-type", b"application/problem+json")])
    assert not of.need_body(200, [(b"content-type", b"text/event-stream")])
    for kind in (b"application/x-ndjson", b"application/jsonl", b"application/stream+json", b"text/json5"):
        assert not of.need_body(200, [(b"content-type", kind)])
    assert not of.need_body(200, [])
    assert not of.need_body(500, JSON)
    assert not rules({"status": 401}).need_body(200, JSON)


def test_a_deep_path_and_text_values() -> None:
    of = rules({"status": 400, "path": "error.details.0.reason", "in": ["ACCESS_TOKEN_EXPIRED"]})
    assert refused(of, 400, JSON, {"error": {"details": [{"reason": "ACCESS_TOKEN_EXPIRED"}]}})
    assert not refused(of, 400, JSON, {"error": {"details": []}})


@given(st.binary(max_size=200))
def test_arbitrary_bodies_are_neither_a_rejection_nor_an_error(body: bytes) -> None:
    assert refused(rules(BAIDU), 200, JSON, body) in {True, False}
