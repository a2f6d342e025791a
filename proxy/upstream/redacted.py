"""Remove from an upstream's responses the secrets that were sent to it.

Upstreams quote requests in their errors, and with them the live token. It is masked in all headers, in the
bodies of errors (status 400 and above), in error events of streams, and in the reason of a WebSocket's close.
Any other body passes byte for byte.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from proxy.credentials import Token
from proxy.errors import BadResponse, InvalidResponse
from proxy.secret_detection import is_secret_header, random_parts
from proxy.wire.headers import Headers, content_coding
from proxy.wire.redaction import PIECE_BYTES_MAX, Expansion, Redactor

TOKENS_REMEMBERED: Final = 3
"""A replaced token is valid for a while, so an upstream may quote one of the last tokens."""


class SentSecrets:
    """The secrets that were sent to one upstream.

    Args:
        headers: The headers of the configuration that are set on every request.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        values = [value for name, value in headers.items() if is_secret_header(name, value)]
        self._fixed = [
            word for value in values for word in {value, value.rpartition(" ")[2], *random_parts(value)}
        ]
        self._tokens: deque[Token] = deque(maxlen=TOKENS_REMEMBERED)
        self._redactor = Redactor(self._fixed)

    def add(self, token: Token | None) -> Redactor:
        """Note that a request is sent with this token, if any; return what masks secrets in its response.

        However late the response is, its own token is masked, although many others may have followed.
        """
        if token is not None and all(known.digest != token.digest for known in self._tokens):
            self._tokens.append(token)
            self._redactor = Redactor([*self._fixed, *(token.secret.reveal() for token in self._tokens)])
        return self._redactor


async def mask(redactor: Redactor, data: bytes) -> bytes:
    """Mask secrets in data of any length, and let other tasks run meanwhile if it is long."""
    if len(data) <= PIECE_BYTES_MAX:
        return redactor.redact(data)
    pieces = list[bytes]()
    for piece in redactor.pieces(data):
        pieces.append(piece)
        await asyncio.sleep(0)
    return b"".join(pieces)


def without_coding(headers: Headers) -> Headers:
    """Return the headers of a body after it has been decompressed."""
    if not content_coding(headers):
        return headers
    return [pair for pair in headers if pair[0].lower() not in {b"content-encoding", b"content-length"}]


class RedactedBody:
    """The body of an error response.

    Args:
        read: Returns the next bytes, or none at the end.
        redactor: Masks the secrets.
        headers: The upstream's headers, with the coding of the body.
    """

    def __init__(self, read: Callable[[], Awaitable[bytes]], redactor: Redactor, headers: Headers) -> None:
        self._read = read
        self._stream = redactor.stream()
        self._ended = False
        coding = content_coding(headers)
        self._expansion = Expansion.of(coding)
        self._is_readable = self._expansion is not None or not coding

    async def read(self) -> bytes:
        """Return the next bytes, without secrets; nothing at the end.

        Raises:
            BadResponse: The body is not in its announced content coding, was cut, or the coding is unknown.
        """
        if not self._is_readable:
            raise InvalidResponse("an error in a content coding that was not asked for")
        while not self._ended:
            if self._expansion is not None and self._expansion.has_more:
                piece = self._expand(b"")
            else:
                arrived = await self._read()
                if not arrived:
                    self._ended = True
                    self._check_end()
                    return self._stream.flush()
                piece = self._expand(arrived)
            if clean := self._stream.feed(piece):
                return clean
        return b""

    def _check_end(self) -> None:
        try:
            if self._expansion is not None:
                self._expansion.check_end()
        except ValueError as error:
            raise BadResponse(reason=str(error)) from error

    def _expand(self, piece: bytes) -> bytes:
        if self._expansion is None:
            return piece
        try:
            return self._expansion.expand(piece)
        except ValueError as error:
            raise BadResponse(reason=str(error)) from error
