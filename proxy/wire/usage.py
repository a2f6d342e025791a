"""Read the tokens that a response reports, without building its objects, or estimate them (pure).

Only a `usage` that the upstream itself reports counts: a member of the outermost object, and in an event also
one of `response`, as in the Responses API, or of the first choice, as Moonshot writes it. A member of that
name elsewhere can come from the caller, for example in a tool that the upstream repeats.
"""

import re
from typing import Final, NamedTuple

import msgspec

from proxy.wire.endpoints import Charge
from proxy.wire.repairs.shallow_json import is_short

TAIL_BYTES: Final = 16 * 1024
"""How much of the end of a long response is searched. Usage follows the long members."""
MEDIA_TOKENS: Final = 1000
"""The estimate for an image, a sound or a video."""

_BYTES_PER_TOKEN: Final = 4
_FRAME_BYTES: Final = 250
"""The approximate size of the JSON around the text of a response or a chunk."""
_TOKENS_MAX: Final = 1 << 53
_LINES_MAX: Final = 100
"""How many of the last lines of a stream that mention usage are read."""
# In reversed JSON a quote inside a string is followed by its backslash. The quantifiers are possessive, and a
# string without a beginning extends to the end, so the search takes linear time.
_REVERSED_TOKEN: Final = re.compile(rb'"(?:[^"]++|"(?=\\))*+(?:"(?!\\)|\Z)|[][{},:]')
_REVERSED_KEY: Final = b'"usage"'[::-1]


class Usage(NamedTuple):
    """The tokens of an exchange."""

    prompt: int
    completion: int


class _Response(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()


class _Event(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()
    response: _Response | msgspec.UnsetType | None = msgspec.UNSET
    choices: msgspec.Raw = msgspec.Raw()


class _Choices(msgspec.Struct, array_like=True):
    first: _Response


_RESPONSE: Final = msgspec.json.Decoder(_Response)
_EVENT: Final = msgspec.json.Decoder(_Event)
_CHOICES: Final = msgspec.json.Decoder(_Choices)


def read_usage(body: bytes) -> Usage | None:
    """Return the usage that a whole JSON response reports; None if it reports none, or only zeros."""
    try:
        return _read_counts(_RESPONSE.decode(body).usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_usage_in_tail(tail: bytes) -> Usage | None:
    """Return the usage in the end of a long JSON response, or of events with another Content-Type."""
    return _read_last_member(tail) or read_stream_usage(tail)


def _read_last_member(tail: bytes) -> Usage | None:
    """Return the usage of the outermost object, searching from the end because the beginning is missing."""
    reversed_tail = tail[-TAIL_BYTES:].rstrip()[::-1]
    depth, value_at, colon_at = 0, 1, 0
    for token in _REVERSED_TOKEN.finditer(reversed_tail):
        kind = token[0]
        if kind in b"}]":
            depth += 1
        elif kind in b"{[":
            depth -= 1
        elif depth == 1 and kind == b",":
            value_at, colon_at = token.end(), 0
        elif depth == 1 and kind == b":":
            colon_at = token.start()
        elif depth == 1 and colon_at and kind == _REVERSED_KEY:
            return _read_counts(reversed_tail[value_at:colon_at][::-1])
        if depth <= 0:
            break
    return None


def read_stream_usage(events: bytes) -> Usage | None:
    """Return the last usage that these events report."""
    end = newline = carriage_return = len(events)
    for _ in range(_LINES_MAX):
        named = events.rfind(b'"usage"', 0, end)
        if named < 0:
            break
        # Only one of them may occur, or neither, so no part of the events is searched twice.
        newline = newline if newline < named else events.rfind(b"\n", 0, named)
        carriage_return = carriage_return if carriage_return < named else events.rfind(b"\r", 0, named)
        start = max(newline, carriage_return) + 1  # where the line begins
        stop = _find_line_end(events, named, end)
        if events.startswith(b"data:", start) and (
            usage := read_event_usage(events[start + len(b"data:") : stop])
        ):
            return usage
        end = start
    return None


def _find_line_end(events: bytes, start: int, end: int) -> int:
    newline = events.find(b"\n", start, end)
    stop = end if newline < 0 else newline
    carriage_return = events.find(b"\r", start, stop)
    return stop if carriage_return < 0 else carriage_return


def estimate_usage(charge: Charge, prompt_bytes: int, response_bytes: int, events: int) -> Usage:
    """Estimate the usage of an exchange that does not report it.

    The estimate is zero only if the endpoint charges nothing.

    Args:
        charge: How the endpoint charges.
        prompt_bytes: The size of the request, if it depends on the number of tokens.
        response_bytes: The number of response bytes received.
        events: The number of events received; 0 if the response is not an event stream.
    """
    if charge is Charge.NOTHING:
        return Usage(0, 0)
    prompt = max(1, prompt_bytes // _BYTES_PER_TOKEN)
    if charge is Charge.MEDIA:
        return Usage(prompt, MEDIA_TOKENS)
    if charge is Charge.PROMPT or not response_bytes:
        return Usage(prompt, 0)
    pieces = max(1, events)
    return Usage(prompt, pieces + max(0, response_bytes - pieces * _FRAME_BYTES) // _BYTES_PER_TOKEN)


def read_event_usage(payload: bytes) -> Usage | None:
    """Return the usage in the JSON of one event: a chunk, or an event of the Responses or Realtime API."""
    try:
        event = _EVENT.decode(payload)
        usage = _read_counts(event.usage)
        if usage is None and isinstance(event.response, _Response):
            usage = _read_counts(event.response.usage)
        if usage is None and memoryview(event.choices).nbytes > len("[]"):
            usage = _read_counts(_CHOICES.decode(event.choices).first.usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return usage


def _read_counts(value: msgspec.Raw | bytes) -> Usage | None:
    """Read usage by OpenAI's names, those of its Responses API, or the total that some rerankers report."""
    if not is_short(value) or not bytes(value).lstrip().startswith(b"{"):
        return None
    try:
        counts = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    prompt = _count(counts.get("prompt_tokens")) or _count(counts.get("input_tokens"))
    completion = _count(counts.get("completion_tokens")) or _count(counts.get("output_tokens"))
    if not prompt and not completion:
        prompt = _count(counts.get("total_tokens"))
    return Usage(prompt, completion) if prompt or completion else None


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < _TOKENS_MAX else 0
