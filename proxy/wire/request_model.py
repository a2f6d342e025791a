"""Decide whether it is certain which model a request runs (pure).

Keys that are limited to models depend on it. Their requests are rejected if two servers could read different
models in them, or if they can name a model in a place that the proxy does not check.

A long body is searched step by step, so that other tasks can run between the steps.
"""

import re
from collections.abc import Generator
from typing import Final, TypeVar
from urllib.parse import unquote_plus

import msgspec

from proxy.errors import InvalidRequest
from proxy.wire.endpoints import Endpoint, ModelPlace
from proxy.wire.form_body import MULTIPART_FORM, NO_FORM, Form
from proxy.wire.headers import Headers, content_coding, media_type, with_hyphens
from proxy.wire.request_json import (
    JSON,
    MODEL_CHARACTERS_MAX,
    NO_FIELDS,
    RequestFields,
    model_too_long,
    word_for_model,
)

MODEL_KEYS_MAX: Final = 1000
"""If JSON has more keys for models, it is uncertain which of them run."""

_PLAIN_JSON: Final = re.compile(rb"application/json(?:; ?charset=\"?utf-8\"?)?", re.IGNORECASE)
_OTHER_METHOD: Final = re.compile(r"_method|x[-_]http[-_]method(?:[-_]override)?|x[-_]method[-_]override")
STEP_BYTES: Final = 256 * 1024
"""How much of a body is searched in one step, which takes 10 ms at most."""
# Any key that contains "model", at any depth, in lower case. A quote inside a string has a backslash.
# Expressions that begin with plain letters are searched many times as fast as those that ignore case.
_MODEL_KEY: Final = re.compile(rb'model(?:(?!model)[^"\\]){0,64}+"(?=[\s:])')
_MODEL_KEY_BYTES_MAX: Final = len(b"model") + 64 + len(b'":')
_COLON: Final = re.compile(rb"\s*+:\s*+")
_VALUE: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|.', re.DOTALL)
_ESCAPED_LETTER: Final = re.compile(rb"\\u00(?:4[1-9A-Fa-f]|5[0-9Aa]|6[1-9A-Fa-f]|7[0-9Aa])")
_ESCAPE_BYTES: Final = len(rb"\u0041")

T = TypeVar("T")
Steps = Generator[None, None, T]
"""A search that yields between its steps, and returns what it found."""


class InspectedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a caller's request that the proxy has inspected: all that decides which model it runs.

    Args:
        endpoint: The endpoint of its path.
        outer_model: The model in the path or the query, if the endpoint takes it from there.
        query: The raw query.
        headers: The received headers, with names in lower case.
        body: The part of the body that is held.
        is_whole: Whether that is the whole body.
        fields: The fields of a JSON body.
        form: The fields of a multipart form.
    """

    endpoint: Endpoint
    outer_model: str | None = None
    query: bytes = b""
    headers: Headers = msgspec.field(default_factory=list)
    body: bytes = b""
    is_whole: bool = True
    fields: RequestFields = NO_FIELDS
    form: Form = NO_FORM

    @property
    def is_compressed(self) -> bool:
        """Whether the request has a body with a Content-Encoding, which the proxy does not read."""
        has_body = bool(self.body) or not self.is_whole
        codings = _values(self.headers, b"content-encoding")
        return has_body and bool(content_coding((b"content-encoding", value) for value in codings))


class NamedModels(msgspec.Struct, frozen=True):
    """Every model that a request names."""

    names: tuple[str, ...] = ()
    ambiguity: str | None = None
    """Why it is uncertain which model the request runs; None if it is certain."""


def find_models(request: InspectedRequest) -> Steps[NamedModels]:
    """Return the models that a request names, or why they are uncertain."""
    ambiguity = _find_ambiguity(request)
    if ambiguity is not None:
        return NamedModels(ambiguity=ambiguity)
    named = [request.outer_model, request.fields.model, request.form.model]
    names = [name for name in named if name is not None]
    if request.endpoint.model is ModelPlace.BODY and request.fields.model is not None:
        if (yield from _has_escaped_letters(request.body)):
            return NamedModels(ambiguity="letters are written as escapes, which can hide a key")
        if request.endpoint.nested_models:
            nested = yield from _find_model_values(request.body)
            if nested is None:
                return NamedModels(ambiguity="a tool may name another one")
            names += nested
    return NamedModels((*names,))


def named_models(text: bytes) -> Steps[list[str] | None]:
    """Return the models that JSON names at any depth, for example in tools; None if that is uncertain.

    A model key whose value is an object is assumed to be part of a JSON schema.
    """
    if (yield from _has_escaped_letters(text)):
        return None
    return (yield from _find_model_values(text))


def _find_model_values(text: bytes) -> Steps[list[str] | None]:
    values = list[bytes]()
    for start in range(0, len(text), STEP_BYTES):
        if start:
            yield
        # A key that begins in this step may end in the next one.
        window = text[start : start + STEP_BYTES + _MODEL_KEY_BYTES_MAX].lower()
        for key in _MODEL_KEY.finditer(window):
            colon = _COLON.match(text, start + key.end()) if key.start() < STEP_BYTES else None
            if colon is None:
                continue
            value = _VALUE.match(text, colon.end())
            if value is None or value[0][:1] not in b'"{n' or len(values) == MODEL_KEYS_MAX:
                return None
            values.append(value[0])
    try:
        return [msgspec.json.decode(value, type=str) for value in values if value.startswith(b'"')]
    except msgspec.DecodeError:
        return None


def _has_escaped_letters(text: bytes) -> Steps[bool]:
    """Whether JSON has escaped letters. Encoders do not escape them, so they may be meant to hide a key."""
    begun = b""
    for start in range(0, len(text), STEP_BYTES):
        if start:
            yield
        # Without pairs of backslashes, each one that is left begins an escape.
        escapes = (begun + text[start : start + STEP_BYTES]).replace(rb"\\", b"")
        if _ESCAPED_LETTER.search(escapes):
            return True
        last = escapes.rfind(b"\\", max(0, len(escapes) - _ESCAPE_BYTES))
        begun = escapes[last:] if last >= 0 else b""
    return False


def _find_ambiguity(request: InspectedRequest) -> str | None:
    """Return what is uncertain about a request even without a search of its body."""
    place = request.endpoint.model
    if place is ModelPlace.HIDDEN:
        return "requests to this endpoint can run a model that they do not name"
    ambiguity = _ambiguity_of_headers(request.headers) or _ambiguity_of_query(request.query, place)
    if ambiguity is not None:
        return ambiguity
    if place is ModelPlace.BODY:
        return _ambiguity_of_body(request)
    if place is ModelPlace.PATH and ";" in (request.outer_model or ""):
        return "the path has parameters"
    if place is not ModelPlace.NONE and request.outer_model is None:
        return "the request names none"
    return None


def check_model_length(request: InspectedRequest) -> None:
    """Reject a request for a model whose name is too long, wherever the request names it.

    Raises:
        InvalidRequest: The name in the path, the query, the JSON or the form has too many characters.
    """
    for name in (request.outer_model, request.fields.model, request.form.model):
        if name is not None and len(name) > MODEL_CHARACTERS_MAX:
            raise model_too_long()


def check_unambiguous(request: InspectedRequest) -> None:
    """Reject a request of any caller that two servers could read differently.

    Raises:
        InvalidRequest: It has several Content-Types, or repeats `model` or `stream`.
    """
    if len(content_types(request.headers)) > 1:
        raise InvalidRequest("the request has more than one Content-Type header")
    repeated = request.fields.repeated or request.form.repeated
    if repeated is not None:
        raise InvalidRequest(f"`{repeated}` occurs more than once in the request body", param=repeated)


def content_types(headers: Headers) -> list[bytes]:
    """Return the values of all Content-Type headers, as a server reads them that takes `_` for `-`."""
    return _values(headers, b"content-type")


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if len(key) == len(name) and with_hyphens(key) == name]


def _ambiguity_of_headers(headers: Headers) -> str | None:
    for raw, value in headers:
        name = raw.decode("latin-1")
        if (word := word_for_model(name)) is not None:
            return f"a header with `{word}` in its name may name another one"
        if _OTHER_METHOD.fullmatch(name):
            return f"the header {name} asks for another method"
        if with_hyphens(raw) == b"content-encoding" and value.strip().lower() != b"identity":
            return "the body is compressed"
    return None


def _ambiguity_of_query(query: bytes, place: ModelPlace) -> str | None:
    names = [unquote_plus(pair.partition(b"=")[0].decode("latin-1")) for pair in _pairs(query)]
    if place is ModelPlace.QUERY and names.count("model") == 1:
        names.remove("model")
    if any(map(word_for_model, names)):
        return "the query may name another one"
    if any(_OTHER_METHOD.fullmatch(name.lower()) for name in names):
        return "the query asks for another method"
    return None


def _pairs(query: bytes) -> list[bytes]:
    return re.split(b"[&;]", query) if query else []


def _ambiguity_of_body(request: InspectedRequest) -> str | None:
    types = content_types(request.headers)
    if len(types) != 1:
        return f"the request has {len(types) or 'no'} Content-Type headers; send one, application/json"
    (content_type,) = types
    kind = media_type(content_type)
    if kind == JSON:
        return _ambiguity_of_json(request, content_type)
    if kind == MULTIPART_FORM and request.endpoint.form:
        if not (request.is_whole and request.form.is_plain):
            return "the form is longer than the limit, or is not written plainly"
        if request.form.other_model_word is not None:
            return f"a field with `{request.form.other_model_word}` in its name may name another one"
        return None if request.form.model is not None else "the form names none"
    known = "application/json or multipart/form-data" if request.endpoint.form else "application/json"
    return f"the Content-Type is not {known}"


def _ambiguity_of_json(request: InspectedRequest, content_type: bytes) -> str | None:
    fields = request.fields
    if not _PLAIN_JSON.fullmatch(content_type.strip()):
        return "the Content-Type has parameters other than charset=utf-8"
    if fields.is_ambiguous("model"):
        return "`model` is repeated, or written in upper case"
    if fields.other_model_word is not None:
        return f"a key with `{fields.other_model_word}` in its name may name another one"
    return "the body names none as a string" if fields.model is None else None
