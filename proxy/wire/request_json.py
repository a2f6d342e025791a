"""Look into a JSON request body in one pass, without building it: is it sound, which model, is it a stream.

A tree of Python objects takes up to a hundred times the bytes of the text, and building it holds the event
loop. So msgspec validates values and skips them, and only scalars are built.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from proxy.errors import InvalidRequest

JSON: Final = b"application/json"
MEMBERS_MAX: Final = 2_000
"""An object with more top-level members is not rewritten: finding a span takes a step for each of them."""

_NAMES: Final = frozenset({"model", "stream"})
_NAME_CHARACTERS_MAX: Final = max(map(len, _NAMES)) * 3  # folding case shortens a string to a third at most
_OCCURRENCES_MAX: Final = 2
_SCALAR_BYTES_MAX: Final = 64
_NO_SHORT_SCALAR: Final = object()
_DECODED_AT_ONCE: Final = 64 * 1024
_FIRST: Final = re.compile(rb"[ \t\r\n]*+(.)", re.DOTALL)
# From the end of a member to the next value. The quantifiers are possessive, so that a match takes no memory.
_KEY: Final = re.compile(rb'[\s,]*+"[^"\\]*+(?:\\.[^"\\]*+)*+"\s*+:\s*+')


@dataclass(frozen=True, slots=True)
class RequestFields:
    """The fields that matter here. The upstream refuses a field of the wrong type."""

    model: str | None = None
    stream: bool = False
    """Whether `stream` is true."""
    streams: bool = False
    """Whether a stream may be the answer: some servers also read `1` or `"true"` as true."""
    other_model_key: str | None = None
    """A top-level key beside `model` that some servers take a model from, such as `models` or `fallbacks`."""
    spellings: tuple[str, ...] = ()
    """The top-level keys that are one of these names, without regard to case and escapes. Repeated keys are
    here twice.

    JSON leaves open what a repeated key means, and some parsers ignore case. So two servers can read two
    different values where a name occurs here twice, or in another case.
    """

    def is_ambiguous(self, name: str) -> bool:
        """Whether two servers could read two values of this field, or only one of them a value."""
        alike = [key for key in self.spellings if key.casefold() == name]
        return alike not in ([], [name])

    @property
    def repeated(self) -> str | None:
        """Which of `model` and `stream` occurs more than once, also written with escapes."""
        for name in ("model", "stream"):
            if self.spellings.count(name) > 1:
                return name
        return None


NO_FIELDS: Final = RequestFields()


class _Member:
    """A key of the outermost object.

    msgspec calls a function for each key of a type that it does not know. That makes repeated keys visible,
    and keeps a dictionary of millions of keys from being built.
    """

    __slots__ = ("name", "occurrences")

    def __init__(self, name: str) -> None:
        self.name = name
        self.occurrences = 0


_Members = dict[_Member, msgspec.Raw]


def check_first_byte(head: bytes) -> None:
    """Refuse a body by its beginning if it cannot be a JSON object.

    Raises:
        InvalidRequest: the first byte that is no white space does not open an object.
    """
    if (first := _FIRST.match(head)) is not None and first[1] != b"{":
        raise InvalidRequest("the request body is not a JSON object")


def read_fields(body: bytes) -> RequestFields:
    """Validate a JSON body and read the fields that matter here.

    Raises:
        InvalidRequest: not UTF-8, not JSON (RFC 8259: no NaN, no lone surrogate), no object, or nested too
            deeply.
    """
    check_first_byte(body)
    _check_encoding(body)
    members, spellings, other = dict[str, _Member](), list[str](), _Member("")
    other_model_key: str | None = None

    def find(_type: type, name: str) -> _Member:
        nonlocal other_model_key
        folded = name.casefold() if len(name) <= _NAME_CHARACTERS_MAX else ""
        if folded not in _NAMES:
            if "model" in folded or "engine" in folded or "deployment" in folded or "fallback" in folded:
                other_model_key = name
            return other
        member = members.setdefault(name, _Member(name))
        if member.occurrences < _OCCURRENCES_MAX:
            spellings.append(name)
        member.occurrences += 1
        return member

    decoded = _open(body, find)
    values = {name: memoryview(decoded[member]) for name, member in members.items()}
    stream = _scalar(values.get("stream"))
    return RequestFields(
        model=_text(values.get("model")),
        stream=stream is True,
        streams=stream is not None and stream is not False,
        other_model_key=other_model_key,
        spellings=tuple(spellings),
    )


def may_name_model(name: str) -> bool:
    """Whether some server may take a model from a header, a parameter or a member of this name."""
    folded = name.casefold()
    return any(word in folded for word in ("model", "engine", "deployment", "fallback"))


def _open(body: bytes, find: Callable[[type, str], _Member]) -> _Members:
    """The members of the outermost object, by what `find` makes of their keys."""
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


def _text(value: memoryview | None) -> str | None:
    return None if value is None or value[0] != ord('"') else msgspec.json.decode(value, type=str)


def _scalar(value: memoryview | None) -> object:
    """A short scalar, or an object that is not null and not false for anything else."""
    if value is None:
        return None
    is_short = len(value) <= _SCALAR_BYTES_MAX and value[0] not in b"[{"
    return msgspec.json.decode(value) if is_short else _NO_SHORT_SCALAR


def replace_model(body: bytes, name: str) -> bytes:
    """Give the model of a request another name, and leave every other byte as it is.

    Args:
        body: Checked by `read_fields`; only a string at the top level's `model` is replaced.
        name: The new name.

    Raises:
        InvalidRequest: the object has too many members.
    """
    new = msgspec.json.encode(name)
    pieces, end = [], 0
    for start, stop in _model_values(body):
        pieces += [body[end:start], new]
        end = stop
    return b"".join([*pieces, body[end:]]) if pieces else body


def _model_values(body: bytes) -> Iterator[tuple[int, int]]:
    """The spans of strings that are values of `model` in the outermost object."""
    number = 0

    def count(_type: type, name: str) -> _Member:
        nonlocal number
        number += 1
        if number > MEMBERS_MAX:
            raise InvalidRequest(f"the request body has more than {MEMBERS_MAX} members")
        return _Member(name)

    members = _open(body, count)
    place = body.index(b"{") + 1
    for member, raw in members.items():
        key = _KEY.match(body, place)
        assert key is not None, "msgspec and this pattern disagree"  # noqa: S101
        value = memoryview(raw)
        place = key.end() + len(value)
        if member.name == "model" and value[0] == ord('"'):
            yield key.end(), place
