"""A server-sent event of a channel, in the two formats of flask-sse 1.0.0 (pure).

On the wire: `event:`, a `data:` line for each line of the data, `id:`, `retry:`, a blank line; no space after
a colon, JSON in ASCII with sorted keys (as Flask writes it). In Redis: a JSON object with `data`, and with
`type`, `id` and `retry` if they are set. As in flask-sse, an empty `type` or `id` and a `retry` of 0 count as
not set, an empty text has no `data:` line, and a text's last line end is omitted.

Two defects of flask-sse are not reproduced: a line end inside `type` or `id` is rejected (it would inject
fields), and a text is split only at CR, LF and CRLF, as browsers split it
(https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
"""

import json
import re
from typing import Final

import msgspec

Position = tuple[int, int]
"""The position of an event in its channel: Unix time in milliseconds, and a count within a millisecond."""

START: Final[Position] = (0, 0)
"""The position before all stored events."""

_ID: Final = re.compile(r"([0-9]{1,20})-([0-9]{1,20})", re.ASCII)
_LARGEST: Final = 2**64 - 1
"""The largest value of either part in Redis; no id can follow the id that consists of both."""
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_NOT_IN_A_FIELD: Final = re.compile(r"[\r\n\0]")


class Event(msgspec.Struct, frozen=True):
    """An event of a channel.

    Args:
        data: A text, which is sent unchanged, or a JSON value.
        type: The event type that the page listens to; `message` if None.
        id: `ms-seq` for an event that is stored and can be replayed.
        retry: Milliseconds after which a browser reconnects.

    Raises:
        ValueError: `type` or `id` holds a line end or a NUL, or `retry` is negative.
    """

    data: object
    type: str | None = None
    id: str | None = None
    retry: int | None = None

    def __post_init__(self) -> None:
        for value in (self.type, self.id):
            if value and _NOT_IN_A_FIELD.search(value):
                raise ValueError("a line end in a field of an event")
        if self.retry is not None and self.retry < 0:
            raise ValueError("the time to the next attempt is negative")

    @property
    def position(self) -> Position | None:
        """The event's position; None for an event of another application, which is not stored."""
        return parse_id(self.id)

    def encode(self) -> bytes:
        """Return the event as it is sent to the browser. A lone surrogate becomes `?`.

        Raises:
            ValueError: Another program has published JSON that is nested too deeply.
        """
        try:
            text = self.data if isinstance(self.data, str) else _dumps(self.data)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        lines = [f"data:{line}" for line in _lines(text)]
        if self.type:
            lines.insert(0, f"event:{self.type}")
        if self.id:
            lines.append(f"id:{self.id}")
        if self.retry:
            lines.append(f"retry:{self.retry}")
        return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")

    def envelope(self) -> bytes:
        """Return the event as flask-sse publishes it in Redis."""
        head, tail = self.envelope_parts()
        if not self.id:
            return head + tail
        return head + b', "id": ' + _dumps(self.id).encode() + tail

    def envelope_parts(self) -> tuple[bytes, bytes]:
        """Return the envelope's parts before and after `, "id": "..."`; joined, an envelope without an id."""
        head = '{"data": ' + _dumps(self.data)
        tail = ""
        if self.retry:
            tail += f', "retry": {self.retry}'
        if self.type:
            tail += f', "type": {_dumps(self.type)}'
        return head.encode(), f"{tail}}}".encode()

    @classmethod
    def from_envelope(cls, raw: bytes) -> "Event":
        """Read an envelope that any client of Redis may have published.

        Raises:
            ValueError: It is not an envelope, or not an event that could be sent.
        """
        try:
            fields = json.loads(raw)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(fields, dict) or "data" not in fields:
            raise ValueError("no envelope of flask-sse")
        return cls(
            fields["data"],
            _text(fields.get("type")),
            _text(fields.get("id")),
            _milliseconds(fields.get("retry")),
        )


def parse_id(text: str | None) -> Position | None:
    """Return the position that an id names, or None for any other text, such as an arbitrary header."""
    match = _ID.fullmatch(text or "")
    if match is None:
        return None
    position = (int(match[1]), int(match[2]))
    return position if max(position) <= _LARGEST and position != (_LARGEST, _LARGEST) else None


def format_id(position: Position) -> str:
    """Return the id of a position: `ms-seq`."""
    return f"{position[0]}-{position[1]}"


def encode_comment(text: str) -> bytes:
    """Return a comment, which keeps a connection alive and is invisible to pages: `: text`."""
    return ("".join(f": {line}\n" for line in _LINE_END.split(text)) + "\n").encode("utf-8", "replace")


def _lines(text: str) -> list[str]:
    lines = _LINE_END.split(text)
    if not lines[-1]:
        lines.pop()
    return lines


def _dumps(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _text(value: object) -> str | None:
    """Return a field of an envelope as text; flask-sse also writes numbers."""
    if not value:
        return None
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("a field of an event is not text")


def _milliseconds(value: object) -> int | None:
    text = _text(value)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ValueError("the time to the next attempt is not a number")
    return int(text)
