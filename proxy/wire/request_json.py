"""Validate a JSON request body and read a few of its fields in one pass, without building its objects.

A tree of Python objects can take a hundred times the memory of the text, and building it blocks the event
loop. So msgspec validates and skips the values, and only short scalars are built.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from proxy.errors import InvalidRequest

JSON: Final = b"application/json"
MEMBERS_MAX: Final = 2_000
"""A body with more top-level members is rejected, because each one takes a step in the event loop."""
NAME_CHARACTERS_MAX: Final = 1_000
"""A body with a longer name of a top-level member is rejected, because words are searched in each name."""
MODEL_CHARACTERS_MAX: Final = 1_000
"""A request for a model with a longer name is rejected, because the name is compared with patterns."""
MODEL_BYTES_MAX: Final = 12 * MODEL_CHARACTERS_MAX
"""A name of more bytes is too long even if each character is a pair of escapes; it is not decoded."""

_NAMES: Final = frozenset({"background", "model", "stream"})
_WORDS_FOR_MODELS: Final = (
    "model", "engine", "deployment", "fallback", "extra_body", "litellm", "router_settings", "user_config",
    "portkey", "preset", "lora", "adapter",
)  # fmt: skip
"""Gateways merge `extra_body` and `litellm_params` into the request, and read routes from `router_settings`,
`user_config`, `portkey` and `preset`. An adapter turns the model into another one: SGLang's `lora_path`,
LoRAX's `adapter_id`."""
_USUAL_NAMES: Final = frozenset(
    """
    frequency_penalty input instructions logprobs max_completion_tokens max_tokens messages metadata
    parallel_tool_calls presence_penalty prompt reasoning_effort response_format seed stop store
    stream_options temperature tool_choice tools top_logprobs top_p user
    """.split()  # noqa: SIM905 - a list of words reads better so
)
"""Most members of most requests. None of them names a model, and this set is faster than the words."""
_NAME_CHARACTERS_MIN: Final = min(map(len, (*_NAMES, *_WORDS_FOR_MODELS)))
_NAME_CHARACTERS_MAX: Final = max(map(len, _NAMES)) * 3  # folding case shortens a string to a third at most
_OCCURRENCES_MAX: Final = 2
_SCALAR_BYTES_MAX: Final = 64
_NO_SHORT_SCALAR: Final = object()
_DECODED_AT_ONCE: Final = 64 * 1024
_FIRST: Final = re.compile(rb"[ \t\r\n]*+(.)", re.DOTALL)
# From the end of a member to the next value. The quantifiers are possessive, so matching takes no memory.
_KEY: Final = re.compile(rb'[\s,]*+"[^"\\]*+(?:\\.[^"\\]*+)*+"\s*+:\s*+')


class RequestFields(msgspec.Struct, frozen=True):
    """The fields of a request that matter to the proxy. The upstream rejects fields of the wrong type."""

    model: str | None = None
    stream: bool = False
    """Whether `stream` is true."""
    streams: bool = False
    """Whether the response may be a stream. Some servers also read `1` or `"true"` as true."""
    background: bool = False
    """Whether the model may run after the response. Some servers also read `1` or `"true"` as true."""
    other_model_word: str | None = None
    """A word in a top-level key other than `model` from which some servers take a model, such as `fallbacks`.

    It is not the key itself, because errors and logs quote it, and keys are the caller's text.
    """
    spellings: tuple[str, ...] = ()
    """The top-level keys of these fields as written, in any case; a repeated key is listed twice.

    Two servers can read different values if a key is repeated, which JSON leaves undefined, or if it is
    written in another case, which some parsers ignore.
    """

    def is_ambiguous(self, name: str) -> bool:
        """Whether two servers could read different values of this field."""
        same_key = [key for key in self.spellings if key.casefold() == name]
        return same_key not in ([], [name])

    @property
    def repeated(self) -> str | None:
        """Whichever of `model` and `stream` occurs more than once, even if written with escapes."""
        for name in ("model", "stream"):
            if self.spellings.count(name) > 1:
                return name
        return None


NO_FIELDS: Final = RequestFields()


class _Member:
    """A key of the outermost object.

    Because msgspec does not know this type, it calls a function for each key. The function sees repeated
    keys. It returns one shared object for all keys that do not matter, so that they fill no dictionary.
    """

    __slots__ = ("name", "occurrences")

    def __init__(self, name: str) -> None:
        self.name = name
        self.occurrences = 0


_Members = dict[_Member, msgspec.Raw]
_TEXT: Final = msgspec.json.Decoder(str)


def check_first_byte(head: bytes) -> None:
    """Reject a body whose beginning shows that it is not a JSON object.

    Raises:
        InvalidRequest: The first byte after white space is not an opening brace.
    """
    if (first := _FIRST.match(head)) is not None and first[1] != b"{":
        raise InvalidRequest("the request body is not a JSON object")


def read_fields(body: bytes) -> RequestFields:
    """Validate a JSON body and read its `model`, `stream` and `background`.

    Raises:
        InvalidRequest: The body is not UTF-8, not JSON (RFC 8259: no NaN, no lone surrogate), not an object,
            nested too deeply, or has too many members or much too long a model.
    """
    check_first_byte(body)
    _check_encoding(body)
    members: dict[str, _Member] = {}
    spellings: list[str] = []
    other = _Member("")
    other_model_word: str | None = None
    number = 0

    def find(_type: type, name: str) -> _Member:
        nonlocal other_model_word, number
        number += 1
        if number > MEMBERS_MAX:
            raise InvalidRequest(f"the request body has more than {MEMBERS_MAX} members")
        if len(name) < _NAME_CHARACTERS_MIN or name in _USUAL_NAMES:
            return other
        if len(name) > _NAME_CHARACTERS_MAX or name.casefold() not in _NAMES:
            if len(name) > NAME_CHARACTERS_MAX:
                raise InvalidRequest(f"a member has a name of more than {NAME_CHARACTERS_MAX} characters")
            other_model_word = word_for_model(name) or other_model_word
            return other
        member = members.setdefault(name, _Member(name))
        if member.occurrences < _OCCURRENCES_MAX:
            spellings.append(name)
        member.occurrences += 1
        return member

    decoded = _open(body, find)
    values = {name: memoryview(decoded[member]) for name, member in members.items()}
    stream, background = _scalar(values.get("stream")), _scalar(values.get("background"))
    return RequestFields(
        model=_model(values.get("model")),
        stream=stream is True,
        streams=stream is not None and stream is not False,
        background=background is not None and background is not False,
        other_model_word=other_model_word,
        spellings=tuple(spellings),
    )


def word_for_model(name: str) -> str | None:
    """Return the word for which some server may take a model from a header or a member of this name."""
    folded = name.casefold()
    for word in _WORDS_FOR_MODELS:  # `next` with a generator takes five times as long
        if word in folded:
            return word
    return None


def _open(body: bytes, find: Callable[[type, str], _Member]) -> _Members:
    """Parse the outermost object; `find` returns the member for a key."""
    try:
        return msgspec.json.decode(body, type=_Members, dec_hook=find)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the request body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("the request body is nested too deeply") from error


def _check_encoding(body: bytes) -> None:
    if body.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(body), _DECODED_AT_ONCE):
        pending = len(decoder.getstate()[0])
        end = start + _DECODED_AT_ONCE
        try:
            decoder.decode(body[start:end], end >= len(body))
        except UnicodeDecodeError as error:
            place = start - pending + error.start
            raise InvalidRequest(f"the request body is not valid UTF-8 (byte {place})") from error


def model_too_long() -> InvalidRequest:
    """Return the error for a model with more than `MODEL_CHARACTERS_MAX` characters."""
    return InvalidRequest(
        f"the name of the model has more than {MODEL_CHARACTERS_MAX} characters", param="model"
    )


def _model(value: memoryview | None) -> str | None:
    if value is None or value[0] != ord('"'):
        return None
    if len(value) > MODEL_BYTES_MAX + len('""'):
        raise model_too_long()
    return _TEXT.decode(value)


def _scalar(value: memoryview | None) -> object:
    """Return a short scalar; for any other value, an object that is neither None nor False."""
    if value is None:
        return None
    if len(value) > _SCALAR_BYTES_MAX or value[0] in b"[{":
        return _NO_SHORT_SCALAR
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:  # JSON has numbers that do not fit, such as 1e999
        return _NO_SHORT_SCALAR


def replace_model(body: bytes, name: str) -> bytes:
    """Replace the model of a request, and keep all other bytes.

    Args:
        body: A body that `read_fields` has checked. Only a top-level `model` that is a string is replaced.
    """
    new = msgspec.json.encode(name)
    pieces, end = [], 0
    for start, stop in _model_values(body):
        pieces += [body[end:start], new]
        end = stop
    return b"".join([*pieces, body[end:]]) if pieces else body


def _model_values(body: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of each string that is the value of `model` in the outermost object."""
    members = _open(body, lambda _type, name: _Member(name))
    place = body.index(b"{") + 1
    for member, raw in members.items():
        key = _KEY.match(body, place)
        assert key is not None, "msgspec and this pattern disagree"  # noqa: S101
        value = memoryview(raw)
        place = key.end() + len(value)
        if member.name == "model" and value[0] == ord('"'):
            yield key.end(), place
