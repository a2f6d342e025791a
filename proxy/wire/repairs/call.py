"""What a caller asked for, as far as repairs depend on it."""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from proxy.wire.endpoints import Shape
from proxy.wire.repairs.shallow_json import first_byte, is_empty, open_list

_ABSENT: Final = msgspec.Raw(b"")


@dataclass(frozen=True, slots=True)
class Call:
    """What a caller asked for, as far as repairs depend on it.

    Args:
        shape: Of the request and its answer; None if no repair applies.
        streams: Whether the caller asked for an event stream; None if the request's `stream` is no boolean.
        usage_asked: Whether the caller set `stream_options.include_usage`.
        base64: Whether the caller asked for embeddings in base64.
        inputs: How many embeddings the caller asked for; None if that is not known.
        documents: How many documents a rerank request holds; None if that is not known.
        top_n: How many results a rerank request asked for.
        tools: Whether the request names tools.
    """

    shape: Shape | None
    streams: bool | None = False
    usage_asked: bool = False
    base64: bool = False
    inputs: int | None = None
    documents: int | None = None
    top_n: object = None
    model: str | None = None
    tools: bool = False


class _Request(msgspec.Struct):
    """The members of a request that a `Call` is made of."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None
    encoding_format: Any = None
    top_n: Any = None
    input: msgspec.Raw = _ABSENT
    documents: msgspec.Raw = _ABSENT
    tools: msgspec.Raw = _ABSENT
    stream_format: Any = None


_DECODER: Final = msgspec.json.Decoder(_Request)


def read_call(shape: Shape | None, body: bytes) -> Call:
    """Read what a request asks for; a body that is not a JSON object asks for nothing in particular."""
    try:
        request = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Call(shape)
    options = request.stream_options
    return Call(
        shape,
        streams=_read_flag(request.stream) if shape is not Shape.SPEECH else request.stream_format == "sse",
        usage_asked=isinstance(options, dict) and options.get("include_usage") is True,
        base64=request.encoding_format == "base64",
        inputs=_count_inputs(request.input),
        documents=len(open_list(request.documents) or ()) or None,
        top_n=request.top_n,
        model=request.model if isinstance(request.model, str) else None,
        tools=not is_empty(request.tools),
    )


def _read_flag(value: object) -> bool | None:
    return bool(value) if value is None or isinstance(value, bool) else None


def _count_inputs(written: msgspec.Raw) -> int | None:
    """Count the texts, or lists of token ids, of an embedding request."""
    if first_byte(written) == b'"':
        return 1
    items = open_list(written)
    if not items:
        return None
    return len(items) if first_byte(items[0]) in {b'"', b"["} else 1
