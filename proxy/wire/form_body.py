"""Find the model in the beginning of a multipart form (RFC 7578).

It takes linear time, since every step moves forward and the number and headers of the parts are bounded. Few
headers are read that no client writes, because werkzeug takes a millisecond for each KiB of them.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec
from werkzeug.http import parse_options_header

from proxy.wire.request_json import MODEL_BYTES_MAX, model_too_long, word_for_model

MULTIPART_FORM: Final = b"multipart/form-data"
PARTS_MAX: Final = 200
"""The number of parts above which the model is not searched."""

_PREAMBLE_BYTES_MAX: Final = 1024
_PART_HEADER_BYTES_MAX: Final = 4 * 1024
_HEADER_BYTES_MAX: Final = 64 * 1024
"""The size of the headers of all parts above which the model is not searched."""
_ODD_BYTES_MAX: Final = 4 * 1024
"""The size of all Content-Dispositions that are not plain above which the model is not searched."""
_CONTENT_TYPE_BYTES_MAX: Final = 1024
_LINE_END: Final = re.compile(rb"[ \t]*+(?:\r\n|--)")
_BLANK_LINE: Final = b"\r\n\r\n"
# The forms that OpenAI's SDKs, httpx, requests, curl and browsers write. All parsers read them alike.
_PLAIN_TYPE: Final = re.compile(
    rb'multipart/form-data; ?boundary=(?:"[\w\'()+,./:=? -]{1,70}"|[\w\'+.-]{1,70})', re.IGNORECASE
)
_PLAIN_DISPOSITION: Final = re.compile(
    r'form-data; ?name=(?:"(?P<quoted>[^"\\%;=\x00-\x1f]*)"|(?P<token>[\w.-]+))'
    r'(?P<file>(?:; ?filename="[^"\\;=\x00-\x1f]*")?(?:; ?filename\*=utf-8\'\'[\w.~%!$&+-]*)?)',
    re.IGNORECASE | re.ASCII,
)
_PLAIN_HEADERS: Final = frozenset({"content-disposition", "content-type", "content-length"})


class Form(msgspec.Struct, frozen=True):
    """The fields of a form that matter to the proxy."""

    model: str | None = None
    """The value of the single field `model`; None if the bytes do not contain it."""
    span: tuple[int, int] = (0, 0)
    """Start and end of the value."""
    is_plain: bool = False
    """Whether the bytes are a whole form that all parsers read alike.

    If so, `model` is what the upstream reads, and None means that the form has no model.
    """
    repeated: str | None = None
    """Which of `model` and `stream` occurs more than once."""
    other_model_word: str | None = None
    """A word in the name of another field from which some servers take a model, as in `RequestFields`."""


NO_FORM: Final = Form()


class _Part(NamedTuple):
    headers: bytes
    start: int
    end: int


class _Field(NamedTuple):
    name: str
    is_file: bool
    is_plain: bool
    """Whether all parsers read its headers alike."""


def read_form(content_type: bytes, head: bytes) -> Form:
    """Find the model of a form.

    Args:
        content_type: The Content-Type. Without a boundary in it, no field is found.
        head: The body, or its beginning.

    Raises:
        InvalidRequest: The model is much too long.
    """
    boundary = _boundary(content_type)
    if not boundary:
        return Form()
    delimiter = b"--" + boundary
    parts = [*_parts(delimiter, head)]
    fields = _read_fields(parts)
    if fields is None:
        return Form()
    names = [None if field is None else "" if field.is_file else field.name for field in fields]
    repeated = next((name for name in ("model", "stream") if names.count(name) > 1), None)
    if len(parts) > PARTS_MAX or repeated is not None:
        return Form(repeated=repeated)
    is_plain = (
        _PLAIN_TYPE.fullmatch(content_type) is not None
        and all(field is not None and field.is_plain for field in fields)
        and _is_plain_frame(delimiter, head, parts)
    )
    others = [field.name for field in fields if field is not None and field.name != "model"]
    word = next(filter(None, map(word_for_model, others)), None)
    if "model" not in names:
        return Form(is_plain=is_plain, other_model_word=word)
    part = parts[names.index("model")]
    if part.end - part.start > MODEL_BYTES_MAX:
        raise model_too_long()
    try:
        model = head[part.start : part.end].decode()
    except UnicodeDecodeError:
        return Form()
    is_plain = is_plain and model.isprintable() and model == model.strip()
    return Form(model, (part.start, part.end), is_plain, other_model_word=word)


def replace_form_model(form: Form, head: bytes, name: str) -> bytes:
    """Replace the model of a form that `read_form` has read, and keep all other bytes."""
    if form.model is None:
        return head
    start, end = form.span
    return b"".join((head[:start], name.encode(), head[end:]))


def _boundary(content_type: bytes) -> bytes:
    if len(content_type) > _CONTENT_TYPE_BYTES_MAX:
        return b""
    return parse_options_header(content_type.decode("latin-1"))[1].get("boundary", "").encode("latin-1")


def _parts(delimiter: bytes, head: bytes) -> Iterator[_Part]:
    """Yield the parts that are whole, `PARTS_MAX` and one more at most."""
    place = head.find(delimiter, 0, _PREAMBLE_BYTES_MAX)
    if place < 0 or head[max(place - 2, 0) : place] not in {b"", b"\r\n"}:
        return
    for _ in range(PARTS_MAX + 1):
        line_end = _LINE_END.match(head, place + len(delimiter))
        if line_end is None or line_end[0].endswith(b"--"):
            return
        headers = line_end.end()
        # Without headers, the line end of the delimiter also belongs to the blank line.
        blank = head.find(_BLANK_LINE, headers - 2, headers + _PART_HEADER_BYTES_MAX)
        following = _find_delimiter(delimiter, head, blank + 2)
        if blank < 0 or following < 0:
            return
        start = blank + len(_BLANK_LINE)
        if start <= following:
            yield _Part(head[headers:blank], start, following)
        place = following + 2


def _find_delimiter(delimiter: bytes, head: bytes, place: int) -> int:
    """Return the position of the next delimiter, including the line end before it; -1 if there is none.

    It gives up after `PARTS_MAX` lines that only begin like a delimiter.
    """
    for _ in range(PARTS_MAX):
        place = head.find(b"\r\n" + delimiter, place)
        if place < 0 or _LINE_END.match(head, place + 2 + len(delimiter)):
            return place
        place += 2
    return -1


def _read_fields(parts: list[_Part]) -> list[_Field | None] | None:
    """Return the field of each part, None for a part that is not one; None if reading them takes too long."""
    if sum(len(part.headers) for part in parts) > _HEADER_BYTES_MAX:
        return None
    fields = list[_Field | None]()
    odd_bytes = 0
    for part in parts:
        headers = [*_headers(part)]
        names = [name for name, _ in headers]
        if names.count("content-disposition") != 1:
            fields.append(None)
            continue
        disposition = dict(headers)["content-disposition"]
        plain = _PLAIN_DISPOSITION.fullmatch(disposition)
        if plain is not None:
            name = plain["quoted"] or plain["token"] or ""
            is_plain = _is_plain_name(name) and len({*names}) == len(names) and {*names} <= _PLAIN_HEADERS
            fields.append(_Field(name, bool(plain["file"]), is_plain))
            continue
        odd_bytes += len(disposition)
        if odd_bytes > _ODD_BYTES_MAX:
            return None
        fields.append(_read_odd_field(disposition))
    return fields


def _headers(part: _Part) -> Iterator[tuple[str, str]]:
    for line in part.headers.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        yield name.lower(), value.strip(" \t")


def _read_odd_field(disposition: str) -> _Field | None:
    kind, options = parse_options_header(disposition)
    if kind.lower() != "form-data" or "name" not in options:
        return None
    return _Field(options["name"], "filename" in options, is_plain=False)


def _is_plain_name(name: str) -> bool:
    return name == "model" or name.casefold().strip(" []") != "model"


def _is_plain_frame(delimiter: bytes, head: bytes, parts: list[_Part]) -> bool:
    """Whether the form begins and ends with delimiters, and no part contains anything like one."""
    last = parts[-1].end + 2 if parts else 0
    return (
        head.startswith(delimiter + b"\r\n")
        and head[last:] in {delimiter + b"--", delimiter + b"--\r\n"}
        and head.count(b"\n" + delimiter) == len(parts)
        and head.count(b"\r" + delimiter) == 0
    )
