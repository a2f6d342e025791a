"""Find the upstream's own errors among the events of a stream (pure).

An error is an event with a member `error`, as in chunks of OpenAI's shape, a `response.failed` of the
Responses API, or an event whose name or type is `error`.
"""

import re
from typing import Final

import msgspec

from proxy.wire.repairs.framing import cut_events, read_payload, split_events

ERROR_WORD: Final = b"error"
"""Events without this word hold no error."""
UNNAMED: Final = "error"
"""The code of an error that has none."""
# Each begins with literal bytes, because the search for them is much faster than one for alternatives.
_SIGNS: Final = (
    re.compile(rb'"error"\s*+:\s*+[^\sn]'),
    re.compile(rb'"type"\s*+:\s*+"error"'),
    re.compile(rb"event: ?error[\r\n]"),
)
_NAMED: Final = re.compile(rb"(?:^|[\r\n])event: ?error[\r\n]")
_MAY_FAIL: Final = re.compile(rb"error|failed|\\")
_UNPRINTABLE: Final = re.compile(r"[^ -~]+")
_CODE_CHARACTERS_MAX: Final = 64


class _Event(msgspec.Struct):
    type: object = None
    code: object = None
    error: object = None
    response: msgspec.Raw = msgspec.Raw()


_EVENT: Final = msgspec.json.Decoder(_Event)


def find_error_code(events: bytes) -> str | None:
    """Return the code or the type of the first error among whole events; None if they hold no error."""
    if not any(sign.search(events) for sign in _SIGNS):
        return None
    codes = (
        _read_code(block)
        for part in cut_events(events)
        if _MAY_FAIL.search(part)  # Most parts of a flood of tiny events hold nothing.
        for block in split_events(part)
    )
    return next((code for code in codes if code is not None), None)


def _read_code(block: bytes) -> str | None:
    named = UNNAMED if _NAMED.search(block) else None
    try:
        event = _EVENT.decode(read_payload(block) or b"")
        failed = _EVENT.decode(event.response) if event.type == "response.failed" else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return named
    if failed is not None:
        return _code_of(failed.error, event.type)
    if event.error:
        return _code_of(event.error, event.type)
    return _code_of({"code": event.code}, event.type) if named or event.type == "error" else None


def _code_of(error: object, kind: object) -> str:
    named = [error.get("code"), error.get("type"), kind] if isinstance(error, dict) else [kind]
    code = next((name for name in named if name and isinstance(name, str | int)), UNNAMED)
    return _UNPRINTABLE.sub(" ", str(code)[:_CODE_CHARACTERS_MAX])
