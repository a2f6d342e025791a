"""Rules for WebSockets: keys in subprotocols, the model in a query, headers, messages, closes (pure)."""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_plus

import msgspec

from proxy.errors import InvalidRequest
from proxy.wire.headers import Headers

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""The size limit of a message in either direction, the same as Hypercorn's."""

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
NO_CODE: Final = 1005
LOST: Final = 1006
POLICY: Final = 1008
INTERNAL: Final = 1011
TRY_AGAIN_LATER: Final = 1013

_KEY: Final = "openai-insecure-api-key."
# The caller's account at OpenAI, which is not forwarded, like the headers of these names.
_ACCOUNT: Final = ("openai-organization.", "openai-project.")
_REASON_BYTES_MAX: Final = 123
_NAMED: Final = re.compile(rb"(?:^|(?<=&))(model|[^&=]*%[^&=]*)(=[^&]*)?(?=&|\Z)")
"""A pair in a query whose name is `model`, or may be that once it is decoded."""
_HANDSHAKE: Final = b"sec-websocket-"
_NEVER_SENT: Final = frozenset({1004, NO_CODE, LOST, 1015})
_CODES: Final = range(1000, 5000)
_RESPONSE_ID: Final = re.compile(r'"response_id"\s*+:\s*+"([^"\\]{1,256}+)"')
_NO_ID: Final = ""
_OPEN_MAX: Final = 1000
"""The most responses that are told apart; of others, the messages count as unreported in any case."""


class Close(NamedTuple):
    """The code and the reason with which a connection is closed."""

    code: int
    reason: str = ""


class _Response(msgspec.Struct):
    id: str = _NO_ID


class _Report(msgspec.Struct):
    response: _Response | None = None


_REPORT: Final = msgspec.json.Decoder(_Report)


class OpenResponses:
    """Counts the upstream's messages in responses of the Realtime API whose usage it has not reported yet.

    Several responses can run at the same time, and one that is cancelled may never be reported. The usage of
    a response therefore settles its own messages only, by the `response_id` that they name.
    """

    def __init__(self) -> None:
        self.messages = 0
        """The number of messages in responses without reported usage."""
        self._open: dict[str, int] = {}
        self._has_ids = False

    def add(self, message: str | bytes) -> None:
        """Count a message. Where messages name responses, a text that names none is part of none."""
        name = _NO_ID
        if isinstance(message, str):
            found = _RESPONSE_ID.search(message) if '"response_id"' in message else None
            name = _NO_ID if found is None else found[1]
            self._has_ids = self._has_ids or found is not None
            if found is None and self._has_ids:
                return
        if name not in self._open and len(self._open) >= _OPEN_MAX:
            del self._open[next(iter(self._open))]
        self._open[name] = self._open.get(name, 0) + 1
        self.messages += 1

    def settle(self, report: str) -> None:
        """Forget the messages of the response whose usage this message reports, and those that name none."""
        for name in {_NO_ID, _reported_response(report)}:
            self.messages -= self._open.pop(name, 0)


def _reported_response(report: str) -> str:
    try:
        response = _REPORT.decode(report).response
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _NO_ID
    return _NO_ID if response is None else response.id


class PartialMessage:
    """The beginning of a message that arrives in pieces, all of them text or all of them bytes."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def size(self) -> int:
        """The number of its bytes; text counts as UTF-8, which is also how it is held."""
        return len(self._data)

    def add(self, piece: str | bytes, *, more: bool) -> str | bytes | None:
        """Add a piece; return the message if no more pieces follow, and begin the next one."""
        if not more and not self._data:
            return piece
        self._data += piece.encode() if isinstance(piece, str) else piece
        if more:
            return None
        whole, self._data = self._data, bytearray()
        return whole.decode() if isinstance(piece, str) else bytes(whole)


def message_size(message: str | bytes) -> int:
    """Return the number of bytes of a message, or of a piece of one; text counts as UTF-8."""
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())


def split_subprotocols(subprotocols: Iterable[str]) -> tuple[list[bytes], list[str]]:
    """Separate the keys that browsers send as subprotocols from the subprotocols to forward."""
    keys, rest = [], []
    for name in subprotocols:
        if name.startswith(_KEY):
            keys.append(name.removeprefix(_KEY).encode())
        elif not name.startswith(_ACCOUNT):
            rest.append(name)
    return keys, rest


def find_model(query: bytes) -> str | None:
    """Return the model in a query.

    Raises:
        InvalidRequest: The query names several models, and servers differ in which one they take.
    """
    models = [_decode((found[2] or b"=")[1:]) for found in _NAMED.finditer(query) if _names_model(found)]
    if len(models) > 1:
        raise InvalidRequest("the query names more than one model", param="model")
    return models[0] if models else None


def rename_model(query: bytes, name: str) -> bytes:
    """Replace the model in a query, and keep all other bytes."""
    new = b"model=" + quote(name, safe="").encode()
    return _NAMED.sub(lambda found: new if _names_model(found) else found[0], query)


def without_handshake(headers: Headers) -> Headers:
    """Drop the headers of the handshake, which each hop sends itself."""
    return [pair for pair in headers if not pair[0].lower().startswith(_HANDSHAKE)]


def sendable_close(close: Close) -> Close:
    """Return a close with a code that may be sent (RFC 6455 7.4). Some codes are only reported locally."""
    reason = close.reason.encode()[:_REASON_BYTES_MAX].decode("utf-8", "ignore")
    if close.code == NO_CODE:
        return Close(NORMAL)
    if close.code in _NEVER_SENT or close.code not in _CODES:
        return Close(INTERNAL, reason)
    return Close(close.code, reason)


def _names_model(found: re.Match[bytes]) -> bool:
    return found[1] == b"model" or _decode(found[1]) == "model"


def _decode(text: bytes) -> str:
    return unquote_plus(text.decode("latin-1"))
