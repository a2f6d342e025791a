"""Rules for WebSockets: keys in subprotocols, the model in a query, headers, close codes (pure)."""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_plus

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

_KEY: Final = "openai-insecure-api-key."
# The caller's account at OpenAI, which is not forwarded, like the headers of these names.
_ACCOUNT: Final = ("openai-organization.", "openai-project.")
_REASON_BYTES_MAX: Final = 123
_NAMED: Final = re.compile(rb"(?:^|(?<=&))(model|[^&=]*%[^&=]*)(=[^&]*)?(?=&|\Z)")
"""A pair in a query whose name is `model`, or may be that once it is decoded."""
_HANDSHAKE: Final = b"sec-websocket-"
_NEVER_SENT: Final = frozenset({1004, NO_CODE, LOST, 1015})
_CODES: Final = range(1000, 5000)


class Close(NamedTuple):
    """The code and the reason with which a connection is closed."""

    code: int
    reason: str = ""


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
