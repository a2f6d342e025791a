"""Mask secrets in the error events of a stream, and in no other event (pure).

A model may write any word, also one that is part of a secret or of a fixed header.
"""

from collections.abc import Callable, Iterator
from typing import Final

from proxy.wire.repairs.framing import cut_events, read_payload, split_events
from proxy.wire.repairs.shallow_json import (
    Members,
    TooManyItems,
    is_empty,
    open_list,
    open_object,
    read_value,
)

ERROR: Final = "error"
"""A message or an event without this word is not searched for secrets."""
_SIGNS: Final = (ERROR, "fail")
_STATES: Final = frozenset({"type", "object", "status", "finish_reason"})
"""Members that name what an event or its result is, such as `response.failed`."""
_RESULTS: Final = frozenset({"response", "status_details", "item"})
"""Members of events of the Responses and Realtime APIs that may hold the error."""
Redact = Callable[[bytes], bytes]


def redact_errors(events: bytes, redact: Redact) -> bytes:
    """Mask the secrets in those of these whole events that report an error."""
    if redact(events) == events:
        return events
    return b"".join(_redact_blocks(events, redact))


def _redact_blocks(events: bytes, redact: Redact) -> Iterator[bytes]:
    for part in cut_events(events):
        if ERROR.encode() not in part:
            yield part
            continue
        for block in split_events(part):
            yield redact(block) if _is_error(block) else block


def _is_error(block: bytes) -> bool:
    payload = read_payload(block)
    others = [line for line in block.splitlines() if not line.startswith(b"data:")]
    return payload is None or _has_sign(b"\n".join(others).decode("latin-1")) or _reports_error(payload)


def redact_message(message: bytes, redact: Redact) -> bytes:
    """Mask the secrets in a message of the Realtime API that reports an error."""
    return redact(message) if ERROR.encode() in message and _reports_error(message) else message


def _reports_error(payload: bytes) -> bool:
    """Whether an object reports an error. Anything else is no text of a model, and may be an error."""
    members = open_object(payload)
    try:
        return members is None or _reports(members)
    except TooManyItems:
        return True


def _reports(members: Members) -> bool:
    for name, value in members.items():
        if ERROR in name.lower() and not is_empty(value):
            return True
        if name in _STATES and _has_sign(read_value(value)):
            return True
        if name in _RESULTS and _reports(open_object(value) or {}):
            return True
        if name == "choices" and any(_reports(open_object(each) or {}) for each in open_list(value) or ()):
            return True
    return False


def _has_sign(value: object) -> bool:
    return isinstance(value, str) and any(sign in value.lower() for sign in _SIGNS)
