"""Look into a JSON request body once, without building it: is it sound, which model, is it a stream."""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from proxy.errors import InvalidRequest

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class RequestFields(msgspec.Struct, frozen=True):
    """The fields that matter here. A field of another type is the upstream's to refuse."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None
    top_n: Any = None

    @property
    def streams(self) -> bool:
        """Whether a stream may come back: some servers take `1` and `"true"` for true as well."""
        return self.stream is not None and self.stream is not False

    @property
    def usage_asked(self) -> bool:
        """Whether a stream shall tell its usage (OpenAI's `stream_options.include_usage`)."""
        options = self.stream_options
        return isinstance(options, dict) and options.get("include_usage") is True


# Of sound JSON: a string, or what opens, closes, parts and joins.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},:]')
_DECODER: Final = msgspec.json.Decoder(RequestFields)
NO_FIELDS: Final = RequestFields()


def read_fields(body: bytes) -> RequestFields:
    """Check a JSON body and read its `model` and `stream`.

    Raises:
        InvalidRequest: not UTF-8, not JSON (RFC 8259: no NaN, no lone surrogate), or nested without end.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the request body is not valid UTF-8 (byte {error.start})") from error
    try:
        if _SURROGATE.search(body) or not body.lstrip().startswith(b"{"):
            # Skipped strings are not unescaped, and a wrong outer type is refused unread: read it all.
            msgspec.json.decode(body)
        return _DECODER.decode(body)
    except msgspec.ValidationError:
        return NO_FIELDS  # sound JSON, but no object
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the request body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("the request body is nested too deeply") from error


def replace_model(body: bytes, name: str) -> bytes:
    """Give the model of a request another name, and leave every other byte as it is.

    Args:
        body: Checked by `read_fields`; only a text at the top level's `model` is replaced.
        name: The new name.
    """
    new = msgspec.json.encode(name)
    pieces, end = [], 0
    for start, stop in _model_values(body):
        pieces += [body[end:start], new]
        end = stop
    return b"".join([*pieces, body[end:]])


def _model_values(body: bytes) -> Iterator[tuple[int, int]]:
    """Where the values of `model` stand in the outermost object."""
    depth, is_value, key = 0, False, b""
    for token in _TOKEN.finditer(body):
        kind = token[0][:1]
        if depth == 1 and kind == b'"':
            if not is_value:
                key = token[0]
            elif msgspec.json.decode(key) == "model":
                yield token.span()
        depth += (kind in b"{[") - (kind in b"}]")
        is_value = kind == b":" if depth == 1 else is_value
