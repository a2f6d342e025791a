"""The bytes that an upstream sends, and the response that a client receives."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.raw_upstream import Conversation

Json = dict[str, Any]
JSON_TYPE: Final = "application/json"
EVENTS_TYPE: Final = "text/event-stream"
DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Reply:
    """One response of an upstream.

    Args:
        pieces: The body as it is written.
        content_type: The label; none if it is None.
        status: The status line without the version.
        headers: Further header lines.
        ends: `well`; `cut` breaks the connection inside the body; `nothing` does so before any byte.
        refuses: A request whose body matches this is answered with a 400 instead.
    """

    pieces: Sequence[bytes]
    content_type: str | None = JSON_TYPE
    status: str = "200 OK"
    headers: tuple[str, ...] = ()
    ends: str = "well"
    refuses: re.Pattern[bytes] | None = None

    @property
    def body(self) -> bytes:
        """All bytes of the response."""
        return b"".join(self.pieces)

    async def write(self, talk: Conversation) -> None:
        """Send the response."""
        if self.refuses is not None and self.refuses.search(talk.request.body):
            error = {"error": {"message": "invalid request", "type": "invalid_request_error"}}
            await talk.answer(
                json.dumps(error).encode(), f"Content-Type: {JSON_TYPE}", status="400 Bad Request"
            )
            return
        if self.ends == "nothing":
            talk.reset()
            return
        label = [] if self.content_type is None else [f"Content-Type: {self.content_type}"]
        bodiless = self.status.startswith(("204", "304"))
        framing = [] if bodiless else ["Transfer-Encoding: chunked"]
        head = [f"HTTP/1.1 {self.status}", *label, *framing, *self.headers, "", ""]
        await talk.say("\r\n".join(head).encode())
        if bodiless:
            return
        for piece in self.pieces:
            if piece:
                await talk.chunk(piece)
        if self.ends == "cut":
            talk.reset()
        else:
            await talk.end()


@dataclass(frozen=True)
class Arrived:
    """A response as a client gets it.

    Args:
        cut: Whether the connection broke inside the body.
    """

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    cut: bool = False

    def header(self, name: str) -> str | None:
        """Return the first value of a header."""
        return next((value for key, value in self.headers if key.lower() == name), None)


def as_json(value: object, **options: Any) -> Reply:
    """Return a whole response."""
    return Reply([json.dumps(value, ensure_ascii=False).encode()], **options)


def event(value: object) -> bytes:
    """Return an event; bytes stay unchanged."""
    return (
        value
        if isinstance(value, bytes)
        else b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
    )


def as_stream(*events: object, **options: Any) -> Reply:
    """Return a stream with one event per piece."""
    return Reply([event(each) for each in events], **{"content_type": EVENTS_TYPE, **options})
