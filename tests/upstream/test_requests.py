"""The request of a caller, and the request that goes to one upstream."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from proxy.access import Caller
from proxy.upstream.requests import CallerRequest
from proxy.wire.endpoints import CHAT_COMPLETIONS, OTHER
from proxy.wire.request_json import read_fields
from proxy.wire.request_model import find_models
from tests.steps import run_steps
from tests.upstream.build import build_request


def incoming(body: bytes = b"") -> CallerRequest:
    """Return a chat request with a body that is read as a whole."""
    return CallerRequest(
        request_id="r",
        method="POST",
        path=b"/chat/completions",
        caller=Caller(name="tester"),
        endpoint=CHAT_COMPLETIONS,
        body=body,
        fields=read_fields(body) if body else read_fields(b"{}"),
    )


@pytest.mark.parametrize(
    ("body", "is_stream"),
    [
        (b'{"stream": true}', True),
        (b'{"stream": false}', False),
        (b'{"stream": null}', False),
        (b'{"stream": 1}', False),  # the upstream rejects it
        (b'{"options": {"stream": true}}', False),
        (b"{}", False),
    ],
)
def test_a_request_is_a_stream_if_its_json_body_asks_for_one(body: bytes, *, is_stream: bool) -> None:
    assert incoming(body).is_stream is is_stream


def test_a_body_that_was_not_read_does_not_ask_for_a_stream() -> None:
    async def rest() -> AsyncIterator[bytes]:
        yield b'{"stream": true}'

    assert not replace(incoming(), is_whole=False, rest=rest()).is_stream


def test_the_request_of_a_caller_names_every_model_that_was_seen_in_it() -> None:
    request = replace(
        incoming(b'{"model": "inner"}'),
        headers=[(b"content-type", b"application/json")],
        outer_model="outer",
        model="inner",
    )
    assert run_steps(find_models(request)).names == ("outer", "inner")


def test_a_request_cannot_change_between_two_attempts() -> None:
    request = build_request()
    with pytest.raises(AttributeError, match="immutable"):
        request.path = b"/other"  # type: ignore[misc]


def test_without_more_details_a_request_is_for_an_unknown_endpoint_and_caller() -> None:
    request = build_request()
    assert (request.endpoint, request.caller, request.model) == (OTHER, "", None)
    assert (request.clock, request.subprotocols, request.content_length) == (None, None, None)
