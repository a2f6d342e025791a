"""Responses as the checks see them: their errors in any shape, their events and when each arrived."""

import json

import pytest

from proxy.cli.doctor.api import TimedResponse, error_in

JSON = [(b"content-type", b"application/json")]


def response(body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> TimedResponse:
    return TimedResponse(200, JSON if headers is None else headers, "1.1", body)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"error": {"message": "no", "code": "c"}}, "no"),
        ({"error": {"code": "c"}}, "c"),
        ({"error": {"type": "t"}}, "error"),
        ({"error": "no"}, "no"),
        ({"code": 40003, "msg": "no"}, "no"),
        ({"code": "InvalidKey"}, "InvalidKey"),
        ({"code": 0, "msg": "ok"}, ""),
        ({"code": "200", "message": "ok"}, ""),
        ({"code": 7, "choices": []}, ""),
        ({"choices": []}, ""),
        (["error"], ""),
        (None, ""),
    ],
)
def test_an_error_is_found_in_any_usual_shape(value: object, error: str) -> None:
    assert error_in(value) == error
    assert response(json.dumps(value).encode()).error == error


def test_only_an_error_of_openai_has_a_code() -> None:
    assert response(b'{"error": {"code": "model_not_found"}}').error_code == "model_not_found"
    for body in (b'{"error": "no"}', b'["error"]', b'{"error": {}}', b"no JSON", b"[" * 100_000):
        assert response(body).error_code == ""


@pytest.mark.parametrize(
    ("body", "kind", "is_html"),
    [
        (b"{}", b"text/html; charset=utf-8", True),
        (b"  <!DOCTYPE html><p>", b"application/json", True),
        (b"<html>", b"text/plain", True),
        (b"{}", b"application/json", False),
        (b"a <html> inside", b"text/plain", False),
    ],
)
def test_a_web_page_is_recognised(body: bytes, kind: bytes, *, is_html: bool) -> None:
    assert response(body, [(b"content-type", kind)]).is_html is is_html


def test_each_event_arrives_with_the_piece_that_holds_its_end() -> None:
    body = b"data: one\n\ndata: two\ndata: lines\n\n: comment\n\ndata: cut"
    first, second = len(b"data: one\n\ndata: t"), len(body)
    timed = TimedResponse(200, [], "1.1", body, pieces=[(0.5, first), (2.0, second)])
    assert timed.events() == [(0.5, b"one"), (2.0, b"two\nlines")]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_an_event_may_have_any_line_ends(end: bytes) -> None:
    body = b"data: x" + end
    assert TimedResponse(200, [], "1.1", body, pieces=[(1.0, len(body))]).events() == [(1.0, b"x")]
