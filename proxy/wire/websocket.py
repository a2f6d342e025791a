"""Rules about WebSockets: keys among subprotocols, the model in a query, headers, close codes (pure)."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_plus

from proxy.errors import InvalidRequest
from proxy.wire.headers import Headers

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of one message, either way; Hypercorn's own bound is the same."""

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
NO_CODE: Final = 1005
LOST: Final = 1006
POLICY: Final = 1008
TOO_BIG: Final = 1009
INTERNAL: Final = 1011

_KEY: Final = "openai-insecure-api-key."
# They name the caller's account at OpenAI, as the headers of these names do, which do not go up either.
_ACCOUNT: Final = ("openai-organization.", "openai-project.")
_REASON_BYTES_MAX: Final = 123
_HANDSHAKE: Final = b"sec-websocket-"
_NEVER_SENT: Final = frozenset({1004, NO_CODE, LOST, 1015})
_CODES: Final = range(1000, 5000)


class Close(NamedTuple):
    """How one side closed, or would have."""

    code: int
    reason: str = ""


def split_subprotocols(subprotocols: Iterable[str]) -> tuple[list[bytes], list[str]]:
    """The keys that a browser hides among its subprotocols, and the subprotocols that go up."""
    keys, rest = [], []
    for name in subprotocols:
        if name.startswith(_KEY):
            keys.append(name.removeprefix(_KEY).encode())
        elif not name.startswith(_ACCOUNT):
            rest.append(name)
    return keys, rest


def find_model(query: bytes) -> str | None:
    """The model that a query names.

    Raises:
        InvalidRequest: it names two: another server might take the other one.
    """
    models = [_decode(value) for name, value in map(_split, query.split(b"&")) if _decode(name) == "model"]
    if len(models) > 1:
        raise InvalidRequest("the query names more than one model", param="model")
    return models[0] if models else None


def rename_model(query: bytes, name: str) -> bytes:
    """Put another model's name into a query, and leave the rest byte for byte."""
    return b"&".join(
        b"model=" + quote(name, safe="").encode() if _decode(_split(pair)[0]) == "model" else pair
        for pair in query.split(b"&")
    )


def without_handshake(headers: Headers) -> Headers:
    """Headers but for those of the handshake itself, which each hop makes anew."""
    return [pair for pair in headers if not pair[0].lower().startswith(_HANDSHAKE)]


def sendable_close(close: Close) -> Close:
    """A close as it may stand in a frame (RFC 6455 7.4): some codes only say what did not arrive."""
    reason = close.reason.encode()[:_REASON_BYTES_MAX].decode("utf-8", "ignore")
    if close.code == NO_CODE:
        return Close(NORMAL)
    if close.code in _NEVER_SENT or close.code not in _CODES:
        return Close(INTERNAL, reason)
    return Close(close.code, reason)


def _split(pair: bytes) -> Sequence[bytes]:
    name, _, value = pair.partition(b"=")
    return name, value


def _decode(text: bytes) -> str:
    return unquote_plus(text.decode("latin-1"))
