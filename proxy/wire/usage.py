"""How many tokens an answer cost: read from it without building it, or else estimated (pure).

Only the usage that the upstream itself reports counts: a member of the answer's outermost object, or of the
`response` in an event of the Responses API. A member of that name elsewhere does not, such as one in a tool
that the caller sent and the upstream repeats.
"""

import re
from typing import Final, NamedTuple

import msgspec

from proxy.wire.endpoints import Charge

TAIL_BYTES: Final = 16 * 1024
"""As much of the end of a long answer is searched: usage follows everything that is long."""
MEDIA_TOKENS: Final = 1000
"""The estimate for an image, a sound or a video."""

_BYTES_PER_TOKEN: Final = 4
_FRAME_BYTES: Final = 250
"""About what the JSON around the text of an answer, or of a chunk, takes."""
_TOKENS_MAX: Final = 1 << 53
# In reversed JSON a quote inside of a string is followed by its backslash. The quantifiers are possessive,
# and a string that has no beginning reaches to the end: the search takes linear time.
_REVERSED_TOKEN: Final = re.compile(rb'"(?:[^"]++|"(?=\\))*+(?:"(?!\\)|\Z)|[][{},:]')
_REVERSED_KEY: Final = b'"usage"'[::-1]


class Usage(NamedTuple):
    """Tokens of an exchange."""

    prompt: int
    completion: int


class _Answer(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()


class _Event(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()
    response: _Answer | msgspec.UnsetType | None = msgspec.UNSET


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_EVENT: Final = msgspec.json.Decoder(_Event)


def read_usage(body: bytes) -> Usage | None:
    """The usage that a whole JSON answer reports; None if it reports none, or zeros only."""
    try:
        return _read_counts(_ANSWER.decode(body).usage)
    except (msgspec.DecodeError, RecursionError):
        return None


def read_usage_in_tail(tail: bytes) -> Usage | None:
    """The usage in the end of a long JSON answer, or of events that the upstream did not label as such."""
    return _read_last_member(tail) or read_stream_usage(tail)


def _read_last_member(tail: bytes) -> Usage | None:
    """The usage of the outermost object, found from its end because its beginning is cut off."""
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
    """The last usage that one of these events reports."""
    for line in reversed(events.splitlines()):
        if (
            line.startswith(b"data:")
            and b'"usage"' in line
            and (usage := read_event_usage(line[5:])) is not None
        ):
            return usage
    return None


def estimate_usage(charge: Charge, prompt_bytes: int, answer_bytes: int, events: int) -> Usage:
    """About what an exchange cost whose usage is not known; never nothing, unless nothing is charged.

    Args:
        charge: Of the endpoint.
        prompt_bytes: Of the request, if its size says something about its tokens.
        answer_bytes: Of the answer, as far as it was received.
        events: Of an event stream; 0 for any other answer.
    """
    if charge is Charge.NOTHING:
        return Usage(0, 0)
    prompt = max(1, prompt_bytes // _BYTES_PER_TOKEN)
    if charge is Charge.MEDIA:
        return Usage(prompt, MEDIA_TOKENS)
    if charge is Charge.PROMPT or not answer_bytes:
        return Usage(prompt, 0)
    pieces = max(1, events)
    return Usage(prompt, pieces + max(0, answer_bytes - pieces * _FRAME_BYTES) // _BYTES_PER_TOKEN)


def read_event_usage(payload: bytes) -> Usage | None:
    """The usage in the JSON of one event: a chunk, or an event of the Responses or the Realtime API."""
    try:
        event = _EVENT.decode(payload)
        usage = _read_counts(event.usage)
        if usage is None and isinstance(event.response, _Answer):
            usage = _read_counts(event.response.usage)
    except (msgspec.DecodeError, RecursionError):
        return None
    return usage


def _read_counts(value: msgspec.Raw | bytes) -> Usage | None:
    """OpenAI's names, those of its Responses API, and the sum alone, which some rerankers report."""
    if not bytes(value).lstrip().startswith(b"{"):
        return None
    try:
        counts = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return None
    prompt, completion = (
        next((count for name in names if (count := _count(counts.get(name)))), 0)
        for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    )
    if not prompt and not completion:
        prompt = _count(counts.get("total_tokens"))
    return Usage(prompt, completion) if prompt or completion else None


def _count(value: object) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOKENS_MAX
    return value if is_count and isinstance(value, int) else 0
