"""Look into the beginning of a multipart form (RFC 7578): which model it names."""

import re
from collections.abc import Iterator
from typing import Final

from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

MULTIPART_FORM: Final = b"multipart/form-data"
PARTS_MAX: Final = 200
"""A form with more parts is not read: it has no model here."""

_PIECE_BYTES: Final = 16 << 10
_PIECES_OF_HEADERS_MAX: Final = 4
_LIKE_MODEL: Final = re.compile(rb'name\*?\s*=\s*"?[^";]*model', re.IGNORECASE)


def read_model(content_type: bytes, head: bytes) -> str | None:
    """The value of the one field `model` that stands whole in the beginning of a form.

    Args:
        content_type: With its boundary; without one no field is found.
        head: The body, or its beginning.
    """
    boundary = _boundary(content_type)
    try:
        models = [value.decode() for value in _fields(boundary, head)] if boundary else []
    except ValueError:  # no form: the upstream's to refuse
        return None
    return models[0] if len(models) == 1 else None


def may_name_model(head: bytes) -> bool:
    """Whether somebody else might find a model there, though `read_model` finds none."""
    return _LIKE_MODEL.search(head) is not None


def replace_form_model(content_type: bytes, head: bytes, name: str) -> bytes:
    """Give the one model of a form another name, and leave every other byte as it is."""
    model = read_model(content_type, head)
    if model is None:
        return head
    line, parts = rb"[^\r\n]+\r\n", re.escape(b"--" + _boundary(content_type))
    field = rb'%b[ \t]*\r\n(?:%b)*?[^\r\n]*;[ \t]*name="?model"?[ \t]*(?:;[^\r\n]*)?\r\n(?:%b)*\r\n'
    pattern = b"(%b)%b(?=\r\n%b)" % (field % (parts, line, line), re.escape(model.encode()), parts)
    return re.sub(pattern, lambda found: found[1] + name.encode(), head, count=1, flags=re.IGNORECASE)


def _boundary(content_type: bytes) -> bytes:
    return parse_options_header(content_type.decode("latin-1"))[1].get("boundary", "").encode("latin-1")


def _fields(boundary: bytes, head: bytes) -> Iterator[bytes]:
    value: bytes | None = None
    for event in _events(boundary, head):
        if not isinstance(event, Data):
            value = b"" if isinstance(event, Field) and event.name == "model" else None
        elif value is not None:
            value += event.data
            if not event.more_data:
                yield value


def _events(boundary: bytes, head: bytes) -> Iterator[Event]:
    """Read no longer than a real form needs: a hostile one could hold the event loop for long."""
    decoder = MultipartDecoder(boundary)
    parts, pieces_of_headers, is_content = 0, 0, False
    for start in range(0, len(head), _PIECE_BYTES):
        decoder.receive_data(head[start : start + _PIECE_BYTES])
        while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
            is_part = isinstance(event, Field | File)
            is_content = is_part or (isinstance(event, Data) and event.more_data)
            parts += is_part
            yield event
        pieces_of_headers += not is_content
        if parts > PARTS_MAX or pieces_of_headers > _PIECES_OF_HEADERS_MAX:
            raise ValueError("no form that is worth reading")
