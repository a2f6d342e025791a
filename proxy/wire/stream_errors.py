"""Find the upstream's own errors among the events of a stream (pure).

An error is an event with a member `error`, as in chunks of OpenAI's shape, a `response.failed` of the
Responses API, or an event whose name or type is `error`.
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from proxy.wire.repairs.framing import cut_events, read_payload, split_events
from proxy.wire.repairs.shallow_json import is_short, read_value

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
_NAMED: Final = re.compile(rb"event(?<![^\r\n]event): ?error[\r\n]")
_WORDS_OF_FAILURE: Final = (b"error", b"failed")
_ESCAPE: Final = b"\\"
"""An event with an escape may write these words with it."""
_UNPRINTABLE: Final = re.compile(r"[^ -~]+")
_CODE_CHARACTERS_MAX: Final = 64
_CANDIDATES_MAX: Final = 1_000
"""How many events of one piece are parsed that have a word of failure, and how many others with an escape."""
_ABSENT: Final = msgspec.Raw(b"")


class _Event(msgspec.Struct):
    type: msgspec.Raw = _ABSENT
    code: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT
    response: msgspec.Raw = _ABSENT


_EVENT: Final = msgspec.json.Decoder(_Event)


def find_error_code(events: bytes) -> str | None:
    """Return the code or the type of the first error among whole events; None if they hold no error."""
    if not any(sign.search(events) for sign in _SIGNS):
        return None
    codes = map(_read_code, _candidates(events))
    return next((code for code in codes if code is not None), None)


def _candidates(events: bytes) -> Iterator[bytes]:
    """Yield the events that may hold an error.

    Escapes are counted separately, because the line breaks of any text are escapes.
    """
    with_word = with_escape = 0
    for part in cut_events(events):
        if not (_has_word(part) or _ESCAPE in part):
            continue  # Most parts of a flood of tiny events hold nothing.
        for block in split_events(part):
            if _has_word(block):
                with_word += 1
                if with_word > _CANDIDATES_MAX:
                    return
                yield block
            elif _ESCAPE in block and with_escape < _CANDIDATES_MAX:
                with_escape += 1
                yield block


def _has_word(text: bytes) -> bool:
    return any(word in text for word in _WORDS_OF_FAILURE)


def _read_code(block: bytes) -> str | None:
    named = UNNAMED if _NAMED.search(block) else None
    try:
        event = _EVENT.decode(read_payload(block) or b"")
        kind = _read(event.type)
        failed = _EVENT.decode(event.response) if kind == "response.failed" else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return named
    if failed is not None:
        return _code_of(_read(failed.error), kind)
    error = _read(event.error)
    if error or not is_short(event.error):
        return _code_of(error, kind)
    return _code_of({"code": _read(event.code)}, kind) if named or kind == "error" else None


def _read(written: msgspec.Raw) -> object:
    """Return a value; None if it is absent, or longer than what describes an error."""
    return read_value(written) if is_short(written) and written is not _ABSENT else None


def _code_of(error: object, kind: object) -> str:
    named = [error.get("code"), error.get("type"), kind] if isinstance(error, dict) else [kind]
    code = next((name for name in named if name and isinstance(name, str | int)), UNNAMED)
    return _UNPRINTABLE.sub(" ", str(code)[:_CODE_CHARACTERS_MAX])
