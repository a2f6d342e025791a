"""Repairs of whole responses: errors in successful responses first, then the members that clients need."""

import json
import re
from collections.abc import Callable
from typing import Final

import msgspec

from proxy.errors import InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.event_stream import BOM
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.framing import is_utf8
from proxy.wire.repairs.lenient_json import without_nan
from proxy.wire.repairs.repair import BARE_LIST, CLIENTS, Repair, Repairs, find_steps
from proxy.wire.repairs.shallow_json import (
    VALUES_MAX,
    Members,
    TooManyItems,
    first_byte,
    holds_too_much,
    is_json,
    is_null,
    open_list,
    open_object,
    to_json,
)
from proxy.wire.repairs.vendor_errors import (
    TRUE_ERRORS,
    VENDOR_ERRORS,
    EmbeddedError,
    read_error_beside,
    read_openai_error,
    read_vendor_error,
)

_AUDIO: Final = frozenset({Shape.SPEECH, Shape.TRANSCRIPTION, Shape.TRANSLATION})
_REPLACEMENT: Final = "\ufffd".encode()
_HTML: Final = re.compile(
    rb"\s*+(?:<!--.{0,2000}?-->\s*+)?+<(?:!doctype|html|head|body|\?xml)\b", re.IGNORECASE | re.DOTALL
)
"""The beginning of a page. A transcription may begin with a tag, such as `<|zh|>` of SenseVoice."""
_CONTROL: Final = bytes([*range(0x09), *range(0x0E, 0x20)])
_LENIENT: Final = (b"NaN", b"Infinity", rb"\ud", rb"\uD", b"\x00")
"""What Python reads and strict JSON forbids: some numbers, lone surrogates, UTF-16 and UTF-32."""
LENIENT_BYTES_MAX: Final = 4 << 20
"""The longest body that Python reads, because it builds every value, and nothing else runs meanwhile."""
_MAIN_MEMBERS: Final[dict[Shape | None, tuple[str, ...]]] = {
    Shape.CHAT: ("choices",),
    Shape.COMPLETION: ("choices",),
    Shape.EMBEDDINGS: ("data", "embeddings", "embedding"),
    Shape.RERANK: ("results", "data", "rankings", "scores"),
}
"""The members that hold the result. The first name is OpenAI's, or Cohere's for reranking."""


UTF8: Final = Repair(
    "utf8",
    "Turns invalid UTF-8 in a result into an error, and replaces it by U+FFFD elsewhere.",
    clients=("all",),
    sets=CLIENTS,
    stages=("response", "stream"),
)
UNWRAP_ANSWER: Final = Repair(
    "unwrap_answer",
    'Takes a response out of an envelope such as `{"code": 0, "data": {...}}` or DashScope\'s `output`.',
    clients=("all",),
    sets=CLIENTS,
    stages=("response", "stream"),
)
_ENVELOPES: Final = ("data", "result", "output", "response")
_KEPT_OUTSIDE: Final = ("id", "object", "created", "model", "usage")


def repair_response(repairs: Repairs, call: Call, body: bytes) -> bytes | EmbeddedError:
    """Repair the body of a whole response.

    Args:
        repairs: The repairs that are enabled.
        call: The caller's request.
        body: The whole uncompressed body of a successful response.

    Returns:
        The repaired body, the same object if nothing changed, or the error that the body contains.

    Raises:
        InvalidResponse: The body does not answer the request, or is not valid UTF-8 (`utf8`).
    """
    if not repairs or call.shape is None:
        return body
    try:
        if call.shape in _AUDIO:
            return _check_audio(repairs, call.shape, body)
        return _repair(repairs, call, call.shape, body)
    except TooManyItems:
        return body


def _repair(repairs: Repairs, call: Call, shape: Shape, body: bytes) -> bytes | EmbeddedError:
    if UTF8 in repairs and not is_utf8(body):
        body = _valid(shape, body)
    response = open_object(body)
    if response is None and TRUE_ERRORS in repairs and body.startswith(BOM):
        body = body.removeprefix(BOM)
        response = open_object(body)
    if response is None and TRUE_ERRORS in repairs and _is_lenient_object(body):
        body = write_strictly(body)
        response = open_object(body)
        if response is None:
            return body  # A lone surrogate cannot be encoded. The client has to deal with it.
    if holds_too_much(body):
        return body
    if response is None:
        response = {BARE_LIST: msgspec.Raw(body)} if open_list(body) is not None else {}
    inner = unwrap(shape, response) if UNWRAP_ANSWER in repairs else None
    error = find_error(repairs, response) or (find_error(repairs, inner) if inner is not None else None)
    if error is not None:
        return error
    new = _change(repairs, call, response if inner is None else inner) or inner
    return body if new is None else to_json(new)


def find_error(repairs: Repairs, response: Members) -> EmbeddedError | None:
    """Return the error that a response or an event contains; None if there is none."""
    error = None
    if TRUE_ERRORS in repairs:
        error = read_openai_error(response) or read_error_beside(response)
    return error or (read_vendor_error(response) if VENDOR_ERRORS in repairs else None)


def unwrap(shape: Shape | None, response: Members) -> Members | None:
    """Take a response out of its envelope; None if it has none."""
    names = _MAIN_MEMBERS.get(shape, ())
    if not names or any(not is_null(response.get(name)) for name in names if name not in _ENVELOPES):
        return None
    for envelope in _ENVELOPES:
        inner = open_object(response.get(envelope))
        if inner is not None and any(not is_null(inner.get(name)) for name in names):
            return {**{name: response[name] for name in _KEPT_OUTSIDE if name in response}, **inner}
    return None


def _change(repairs: Repairs, call: Call, response: Members) -> Members | None:
    """Return the changed response; None if no repair changes it."""
    new = None
    for step in find_steps(repairs, "response", call.shape):
        changed = step.change(response if new is None else new, call)
        new = new if changed is None else changed
    if TRUE_ERRORS in repairs:
        _check_answered(call.shape, response if new is None else new)
    return new


def replace_invalid(
    shape: Shape | None, text: bytes, read: Callable[[bytes], bytes | None] = bytes
) -> bytes | None:
    """Replace invalid UTF-8 by U+FFFD; None if the result itself, such as `choices`, is affected.

    Args:
        shape: The shape of the response.
        text: A whole response, or an event.
        read: Returns the JSON in the text, or None if there is none.
    """
    valid = text.decode("utf-8", "replace").encode()
    payload = read(valid)
    if payload is None:
        return valid
    response, names = open_object(payload), _MAIN_MEMBERS.get(shape, ())
    written = [bytes(response[name]) for name in names if name in response] if response is not None else []
    return valid if written and not any(_REPLACEMENT in each for each in written) else None


def _valid(shape: Shape, body: bytes) -> bytes:
    valid = replace_invalid(shape, body)
    if valid is None:
        raise InvalidResponse("text that is not valid UTF-8")
    return valid


def _is_lenient_object(body: bytes) -> bool:
    """Whether only Python reads a body as a JSON object, because it holds NaN for example.

    Raises:
        InvalidResponse: Python cannot read it either.
    """
    if not body.strip():
        raise InvalidResponse("an empty body")
    if is_json(body):
        return False
    if is_lenient(body) and (value := read_leniently(body)) is not None:
        return isinstance(value, dict)
    raise InvalidResponse("HTML" if body.lstrip().startswith(b"<") else "a body that is not JSON")


def is_lenient(text: bytes) -> bool:
    """Whether Python may read a text that is not strict JSON, and does so in a short time."""
    if len(text) > LENIENT_BYTES_MAX or not any(sign in text for sign in _LENIENT):
        return False
    return text.count(b"[") + text.count(b"{") <= VALUES_MAX


def read_leniently(text: bytes) -> object:
    """Return what Python reads; None if it is null, or if Python cannot read it either."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def write_strictly(body: bytes) -> bytes:
    """Rewrite a lenient object as strict JSON, with null for NaN; return the body itself if that fails."""
    try:
        text = body if b"\x00" not in body else body.decode(json.detect_encoding(body)).encode()
    except UnicodeError:
        return body
    strict = without_nan(text)
    return strict if is_json(strict) else body


def _check_answered(shape: Shape | None, response: Members) -> None:
    """Reject a response that lacks the requested result."""
    name = _MAIN_MEMBERS.get(shape, ("",))[0]
    if not name or (shape == Shape.RERANK and BARE_LIST in response):
        return
    items = open_list(response.get(name))
    if not items:
        raise InvalidResponse(f"a response without {name}")
    if shape is Shape.CHAT:
        message = open_object((open_object(items[0]) or {}).get("message"))
        if message is None:
            raise InvalidResponse("a choice without a message")
        if first_byte(message.get("content")) not in {b"", b"n", b'"', b"[", b"{"}:
            raise InvalidResponse("content that is not a text")


# --- audio


def _check_audio(repairs: Repairs, shape: Shape | None, body: bytes) -> bytes | EmbeddedError:
    """Return the error that was sent instead of audio or a transcription, or else the body."""
    if TRUE_ERRORS not in repairs and VENDOR_ERRORS not in repairs:
        return body
    response = open_object(body)
    error = None if response is None else find_error(repairs, response)
    if error is not None or TRUE_ERRORS not in repairs:
        return error or body
    if shape == Shape.SPEECH and (response is not None or _is_text(body)):
        raise InvalidResponse("text in place of audio")
    if _HTML.match(body):
        raise InvalidResponse("HTML")
    if response is not None and "text" in response and is_null(response["text"]):
        raise InvalidResponse("a transcription without a text")
    return body


def _is_text(body: bytes) -> bool:
    """Whether the bytes are text. Audio contains control characters or invalid UTF-8."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return len(body.translate(None, _CONTROL)) == len(body)


REPAIRS: Final = (UTF8, UNWRAP_ANSWER)
