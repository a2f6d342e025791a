"""Errors in OpenAI's envelope, as responses and as events of a stream (pure)."""

import re
from collections.abc import Mapping
from typing import Final, cast

import msgspec

from proxy.errors import ErrorEnvelope, UpstreamForbidden
from proxy.wire.headers import Headers

MESSAGE_CHARACTERS_MAX: Final = 1000
_BODY_LENGTH_MAX: Final = 64 * 1024
"""A longer body is not parsed, because building what it holds could take long."""
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def error_body(envelope: ErrorEnvelope) -> bytes:
    """Encode an error as a response body."""
    return msgspec.json.encode(envelope)


def error_headers(headers: Mapping[str, str]) -> Headers:
    """Return the headers of a response whose body is an error.

    Args:
        headers: Those of the error itself, such as `Retry-After`. A `Cache-Control` among them replaces ours.
    """
    own = {name.lower(): value for name, value in headers.items()}
    shown = {"content-type": "application/json", "cache-control": "no-store", **own}
    return [(name.encode(), value.encode("latin-1")) for name, value in shown.items()]


def error_event(envelope: ErrorEnvelope, *, named: bool = False) -> bytes:
    """Encode an error as the last event of a stream.

    Args:
        named: Write `event: error` before the data, as the Responses API does.
    """
    return (b"event: error\n" if named else b"") + b"data: " + error_body(envelope) + b"\n\n"


def read_error(body: bytes) -> ErrorEnvelope | None:
    """Return the error that a response body holds in OpenAI's envelope; None if it holds none."""
    held = _decode(body)
    error = held.get("error") if isinstance(held, dict) else None
    return cast(ErrorEnvelope, {"error": error}) if isinstance(error, dict) else None


def forbidden_error(status: int, body: bytes) -> UpstreamForbidden:
    """Build the error for a request that the upstream rejects with every token.

    Args:
        status: The status of the upstream's response.
        body: The beginning of its body, with our secrets masked.
    """
    text = body.decode("utf-8", "replace")
    reason = f"the upstream answered {status}, and a newer token does not help"
    held = _decode(text)
    if isinstance(held, dict):
        error = held.get("error")
        if isinstance(error, dict) and isinstance(error.get("message"), str):
            return UpstreamForbidden(error=error, reason=reason)
        messages = (error, held.get("message"), held.get("detail"), held.get("msg"), held.get("error_msg"))
        text = next((message for message in messages if isinstance(message, str)), "")
    elif text.lstrip().startswith("<"):
        text = ""  # an HTML page
    message = _UNPRINTABLE.sub(" ", text).strip()[:MESSAGE_CHARACTERS_MAX]
    return UpstreamForbidden(message or None, reason=reason)


def _decode(body: bytes | str) -> object:
    if len(body) > _BODY_LENGTH_MAX:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
