"""Repairs of whole answers: first the errors in them, then what clients miss."""

import json
import re
from collections.abc import Callable
from typing import Final

import msgspec

from proxy.errors import InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.framing import is_utf8
from proxy.wire.repairs.registry import BARE_LIST, CLIENTS, Repair, Repairs, find_steps
from proxy.wire.repairs.shallow_json import (
    Members,
    first_byte,
    has_too_many_objects,
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
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_MAIN_MEMBERS: Final = {
    Shape.CHAT: ("choices",),
    Shape.COMPLETION: ("choices",),
    Shape.EMBEDDINGS: ("data", "embeddings", "embedding"),
    Shape.RERANK: ("results", "data", "rankings", "scores"),
}
"""The members that hold an answer; the first name is that of OpenAI, or of Cohere."""


UTF8: Final = Repair(
    "utf8",
    "Turns an answer or event that is not valid UTF-8 into an error, or elsewhere writes U+FFFD.",
    clients=("all",),
    sets=CLIENTS,
    stages=("answer", "stream"),
)
UNWRAP_ANSWER: Final = Repair(
    "unwrap_answer",
    'Takes an answer out of an envelope such as `{"code": 0, "data": {...}}` or DashScope\'s `output`.',
    clients=("all",),
    sets=CLIENTS,
    stages=("answer", "stream"),
)
_ENVELOPES: Final = ("data", "result", "output", "response")
_KEPT_OUTSIDE: Final = ("id", "object", "created", "model", "usage")


def repair_response(repairs: Repairs, call: Call, body: bytes) -> bytes | EmbeddedError:
    """Return a whole answer as clients read it: the same object if nothing changed.

    Args:
        repairs: Those that are on.
        call: What the caller asked for.
        body: The whole uncompressed body of a successful response.

    Returns:
        The body, or the error that it contains.

    Raises:
        InvalidResponse: The body is no answer to the call, or not valid UTF-8 (`utf8`).
    """
    if not repairs or call.shape is None:
        return body
    if call.shape in _AUDIO:
        return _check_audio(repairs, call.shape, body)
    if UTF8 in repairs and not is_utf8(body):
        body = _valid(call.shape, body)
    answer = open_object(body)
    if answer is None and TRUE_ERRORS in repairs and _is_lenient_object(body):
        body = _write_strictly(body)
        answer = open_object(body)
        if answer is None:
            return body  # such as half of a surrogate pair, which has no encoding: the client decides
    if has_too_many_objects(body):
        return body
    if answer is None:
        answer = {BARE_LIST: msgspec.Raw(body)} if open_list(body) is not None else {}
    inner = unwrap(call.shape, answer) if UNWRAP_ANSWER in repairs else None
    error = find_error(repairs, answer) or (find_error(repairs, inner) if inner is not None else None)
    if error is not None:
        return error
    new = _change(repairs, call, answer if inner is None else inner) or inner
    return body if new is None else to_json(new)


def find_error(repairs: Repairs, answer: Members) -> EmbeddedError | None:
    """Return the error that an answer or an event is, in place of what was asked for."""
    error = None
    if TRUE_ERRORS in repairs:
        error = read_openai_error(answer) or read_error_beside(answer)
    return error or (read_vendor_error(answer) if VENDOR_ERRORS in repairs else None)


def unwrap(shape: Shape | None, answer: Members) -> Members | None:
    """Take an answer out of an envelope; None if there is none."""
    names = () if shape is None else _MAIN_MEMBERS.get(shape, ())
    if not names or any(not is_null(answer.get(name)) for name in names if name not in _ENVELOPES):
        return None
    for envelope in _ENVELOPES:
        inner = open_object(answer.get(envelope))
        if inner is not None and any(not is_null(inner.get(name)) for name in names):
            return {**{name: answer[name] for name in _KEPT_OUTSIDE if name in answer}, **inner}
    return None


def _change(repairs: Repairs, call: Call, answer: Members) -> Members | None:
    """Return what replaces an answer; None if it stays."""
    new = None
    for step in find_steps(repairs, "answer", call.shape):
        changed = step.change(answer if new is None else new, call)
        new = new if changed is None else changed
    if TRUE_ERRORS in repairs:
        _check_answered(call.shape, answer if new is None else new)
    return new


def replace_invalid(shape: Shape, text: bytes, read: Callable[[bytes], bytes | None] = bytes) -> bytes | None:
    """Write U+FFFD for bytes that are not valid UTF-8; None if they stand in the answer itself.

    Args:
        shape: Of the answer.
        text: A whole answer, or an event.
        read: Returns the JSON in the text, or None if there is none.
    """
    valid = text.decode("utf-8", "replace").encode()
    payload = read(valid)
    if payload is None:
        return valid
    answer, names = open_object(payload), _MAIN_MEMBERS.get(shape, ())
    written = [bytes(answer[name]) for name in names if name in answer] if answer is not None else []
    return valid if written and not any(_REPLACEMENT in each for each in written) else None


def _valid(shape: Shape, body: bytes) -> bytes:
    valid = replace_invalid(shape, body)
    if valid is None:
        raise InvalidResponse("text that is not valid UTF-8")
    return valid


def _is_lenient_object(body: bytes) -> bool:
    """Whether a body is an object that Python reads as JSON, although it holds NaN or a byte order mark.

    Raises:
        InvalidResponse: Python cannot read it either.
    """
    if not body.strip():
        raise InvalidResponse("an empty body")
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError) as error:
        kind = "HTML" if body.lstrip().startswith(b"<") else "a body that is not JSON"
        raise InvalidResponse(kind) from error


def _write_strictly(body: bytes) -> bytes:
    """Write such an object as JSON, with null in place of NaN; the same body if that is impossible."""
    try:
        return to_json(json.loads(body, parse_constant=lambda _: None))
    except (UnicodeEncodeError, RecursionError):
        return body


def _check_answered(shape: Shape | None, answer: Members) -> None:
    """Reject an answer without what was asked for."""
    name = "" if shape is None else _MAIN_MEMBERS.get(shape, ("",))[0]
    if not name or (shape == Shape.RERANK and BARE_LIST in answer):
        return
    items = open_list(answer.get(name))
    if not items:
        raise InvalidResponse(f"an answer without {name}")
    if shape is Shape.CHAT:
        message = open_object((open_object(items[0]) or {}).get("message"))
        if message is None:
            raise InvalidResponse("a choice without a message")
        if first_byte(message.get("content")) not in {b"", b"n", b'"', b"[", b"{"}:
            raise InvalidResponse("content that is not a text")


# --- audio


def _check_audio(repairs: Repairs, shape: Shape | None, body: bytes) -> bytes | EmbeddedError:
    """Find the error in place of speech or of a transcription, which may be text of any kind."""
    if TRUE_ERRORS not in repairs and VENDOR_ERRORS not in repairs:
        return body
    answer = open_object(body)
    error = None if answer is None else find_error(repairs, answer)
    if error is not None or TRUE_ERRORS not in repairs:
        return error or body
    if shape == Shape.SPEECH and (answer is not None or _is_text(body)):
        raise InvalidResponse("text in place of audio")
    if body.lstrip()[:1] == b"<":
        raise InvalidResponse("HTML")
    if answer is not None and "text" in answer and is_null(answer["text"]):
        raise InvalidResponse("a transcription without a text")
    return body


def _is_text(body: bytes) -> bool:
    """Whether bytes are text: audio holds bytes that text does not."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return _CONTROL.search(body) is None
