"""Find where an HTTP/1.1 response ends in the bytes received, and whether more bytes follow (pure).

HTTP libraries report that a response is complete, but not whether the last read returned more bytes. Such
bytes must not become the beginning of the response to the next caller.
"""

import re
from collections.abc import Iterable
from enum import Enum
from typing import Final

HEAD_BYTES_MAX: Final = 256 * 1024
BODILESS: Final = frozenset({204, 304})
"""Statuses of responses without a body, beside those below 200 (RFC 9110 6.4.1)."""
_CHUNKED: Final = (b"transfer-encoding", b"chunked")
_FRAMING: Final = frozenset({b"content-length", _CHUNKED[0]})
_LAST_CHUNK: Final = b"0\r\n\r\n"
_HEAD_END: Final = b"\r\n\r\n"
_TIMEOUT: Final = re.compile(rb"(?:^|[,;\s])timeout=(\d{1,6})(?=$|[,;\s])", re.IGNORECASE)


class End(Enum):
    """How the number of bytes received compares with the length of the response."""

    EXACT = "exact"
    SURPLUS = "surplus"
    UNCLEAR = "unclear"


# Python 3.11 calls a function for each access to a member of an enumeration.
EXACT: Final = End.EXACT
SURPLUS: Final = End.SURPLUS
UNCLEAR: Final = End.UNCLEAR


class ResponseMeter:
    """Counts the raw bytes of one response."""

    def __init__(self) -> None:
        self.received = 0
        self._head = bytearray()
        self._head_length: int | None = None
        self._last = b""

    def feed(self, data: bytes) -> None:
        """Count bytes as they arrive from the socket."""
        self.received += len(data)
        self._last = data[-5:] if len(data) >= len(_LAST_CHUNK) else (self._last + data)[-5:]
        if self._head_length is None:
            self._find_head(data)

    def _find_head(self, data: bytes) -> None:
        searched = max(0, len(self._head) - len(_HEAD_END) + 1)
        self._head += data
        end = self._head.find(_HEAD_END, searched)
        if end >= 0:
            head = bytes(self._head[: end + len(_HEAD_END)])
            # A lenient parser also ends lines at a bare LF, and skips empty lines before the response.
            is_strict = head.startswith(b"HTTP/1.1 ") and head.count(b"\n") == head.count(b"\r\n")
            self._head_length = len(head) if is_strict and len(head) <= HEAD_BYTES_MAX else 0
        elif len(self._head) > HEAD_BYTES_MAX:
            self._head_length = 0
        if self._head_length is not None:
            self._head.clear()

    def end(self, method: str, status: int, headers: Iterable[tuple[bytes, bytes]]) -> End:
        """Compare the number of bytes received with the length of the response.

        Call it when the parser reports that the response is complete.

        Args:
            method: The method of the request. The response to a HEAD has no body.
            status: The status of the response.
            headers: The headers of the response, unchanged.
        """
        if not self._head_length:
            return UNCLEAR
        expected = self._head_length
        if method != "HEAD" and status not in BODILESS:
            framing = [(name, value.strip()) for key, value in headers if (name := key.lower()) in _FRAMING]
            if len(framing) != 1:
                return UNCLEAR
            name, value = framing[0]
            if name == _CHUNKED[0]:
                exact = value.lower() == _CHUNKED[1] and self._last == _LAST_CHUNK
                return EXACT if exact else UNCLEAR
            if not value.isdigit():
                return UNCLEAR
            expected += int(value)
        if self.received == expected:
            return EXACT
        return SURPLUS if self.received > expected else UNCLEAR


def announced_idle_seconds(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Return the N of `Keep-Alive: timeout=N`, after which the server closes an idle connection."""
    for name, value in headers:
        if name.lower() == b"keep-alive" and (found := _TIMEOUT.search(value)) is not None:
            return float(found.group(1))
    return None
