"""The properties of a caller's request that repairs of the response depend on."""

from typing import Final

import msgspec

from proxy.wire.endpoints import Shape
from proxy.wire.repairs.shallow_json import (
    IDS_MAX,
    TooManyItems,
    first_byte,
    is_empty,
    is_null,
    open_list,
    open_object,
    read_value,
)

_SCALAR_BYTES_MAX: Final = 1024
_ABSENT: Final = msgspec.Raw(b"")
_DIGITS: Final = frozenset({b"-", *(b"%d" % digit for digit in range(10))})
_TEXT_OR_IDS: Final = frozenset({b'"', b"["})


class Call(msgspec.Struct, frozen=True):
    """The properties of a caller's request that repairs of the response depend on.

    Args:
        shape: The shape of request and response; None if no repair applies.
        streams: Whether the caller asked for an event stream; None if `stream` is not a boolean.
        usage_requested: Whether the caller set `stream_options.include_usage`.
        base64: Whether the caller asked for embeddings in base64.
        inputs: The number of embeddings to expect; None if unknown.
        documents: The number of documents to rerank; None if unknown.
        top_n: The number of rerank results that the caller asked for.
        tools: Whether the request has tools.
    """

    shape: Shape | None
    streams: bool | None = False
    usage_requested: bool = False
    base64: bool = False
    inputs: int | None = None
    documents: int | None = None
    top_n: object = None
    model: str | None = None
    tools: bool = False


class _Request(msgspec.Struct):
    model: msgspec.Raw = _ABSENT
    stream: msgspec.Raw = _ABSENT
    stream_options: msgspec.Raw = _ABSENT
    encoding_format: msgspec.Raw = _ABSENT
    top_n: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    documents: msgspec.Raw = _ABSENT
    tools: msgspec.Raw = _ABSENT
    stream_format: msgspec.Raw = _ABSENT


_DECODER: Final = msgspec.json.Decoder(_Request)


def read_call(shape: Shape | None, body: bytes) -> Call:
    """Read the properties of a request; they are unknown if the body is not a JSON object."""
    try:
        request = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Call(shape, streams=None)
    model = _read_scalar(request.model)
    is_stream = shape is not Shape.SPEECH
    return Call(
        shape,
        streams=_read_flag(request.stream) if is_stream else _read_scalar(request.stream_format) == "sse",
        usage_requested=_asks_for_usage(request.stream_options),
        base64=_read_scalar(request.encoding_format) == "base64",
        inputs=_count_inputs(request.input),
        documents=len(_read_items(request.documents)) or None,
        top_n=_read_scalar(request.top_n),
        model=model if isinstance(model, str) else None,
        tools=not is_empty(request.tools),
    )


def _read_scalar(written: msgspec.Raw) -> object:
    """Return a short scalar; None for any other value."""
    view = memoryview(written)
    if not view.nbytes or view.nbytes > _SCALAR_BYTES_MAX or view[0] in b"[{":
        return None
    return read_value(written)


def _read_flag(written: msgspec.Raw) -> bool | None:
    """Return a boolean, which is False if the member is null or absent; None for any other value."""
    if is_null(written):
        return False
    return {b"true": True, b"false": False}.get(bytes(memoryview(written)[: len(b"false!")]))


def _asks_for_usage(options: msgspec.Raw) -> bool:
    try:
        return bytes((open_object(options) or {}).get("include_usage", _ABSENT)) == b"true"
    except TooManyItems:
        return False


def _count_inputs(written: msgspec.Raw) -> int | None:
    """Count the texts, or the lists of token ids, in an embedding request.

    Some vendors embed each object of a list, for example an image, and others all of them as one.
    """
    if first_byte(written) == b'"':
        return 1
    items = _read_items(written)
    if not items:
        return None
    if first_byte(items[0]) in _DIGITS:
        return 1
    return len(items) if all(first_byte(item) in _TEXT_OR_IDS for item in items) else None


def _read_items(written: msgspec.Raw) -> list[msgspec.Raw]:
    try:
        return open_list(written, IDS_MAX) or []
    except TooManyItems:
        return []
