"""The properties of a caller's request that repairs of the response depend on."""

from dataclasses import dataclass
from typing import Final

import msgspec

from proxy.wire.endpoints import Shape
from proxy.wire.repairs.shallow_json import IDS_MAX, TooManyItems, first_byte, is_empty, open_list

_ABSENT: Final = msgspec.Raw(b"")


@dataclass(frozen=True, slots=True)
class Call:
    """The properties of a caller's request that repairs of the response depend on.

    Args:
        shape: The shape of request and response; None if no repair applies.
        streams: Whether the caller asked for an event stream; None if `stream` is not a boolean.
        usage_requested: Whether the caller set `stream_options.include_usage`.
        base64: Whether the caller asked for embeddings in base64.
        inputs: The number of texts to embed; None if unknown.
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
    model: object = None
    stream: object = None
    stream_options: object = None
    encoding_format: object = None
    top_n: object = None
    input: msgspec.Raw = _ABSENT
    documents: msgspec.Raw = _ABSENT
    tools: msgspec.Raw = _ABSENT
    stream_format: object = None


_DECODER: Final = msgspec.json.Decoder(_Request)


def read_call(shape: Shape | None, body: bytes) -> Call:
    """Read the properties of a request; a body that is not a JSON object has the defaults."""
    try:
        request = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Call(shape)
    options = request.stream_options
    return Call(
        shape,
        streams=_read_flag(request.stream) if shape is not Shape.SPEECH else request.stream_format == "sse",
        usage_requested=isinstance(options, dict) and options.get("include_usage") is True,
        base64=request.encoding_format == "base64",
        inputs=_count_inputs(request.input),
        documents=len(_read_items(request.documents)) or None,
        top_n=request.top_n,
        model=request.model if isinstance(request.model, str) else None,
        tools=not is_empty(request.tools),
    )


def _read_flag(value: object) -> bool | None:
    return bool(value) if value is None or isinstance(value, bool) else None


def _count_inputs(written: msgspec.Raw) -> int | None:
    """Count the texts, or the lists of token ids, in an embedding request."""
    if first_byte(written) == b'"':
        return 1
    items = _read_items(written)
    if not items:
        return None
    return len(items) if first_byte(items[0]) in {b'"', b"["} else 1


def _read_items(written: msgspec.Raw) -> list[msgspec.Raw]:
    try:
        return open_list(written, IDS_MAX) or []
    except TooManyItems:
        return []
