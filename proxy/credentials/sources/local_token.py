"""The token in what this host's files and commands say, and how long it lives by this host's clock (pure)."""

import json
import math
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from typing import Any, Final

from proxy.credentials.credential import LifetimeDoubt
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.expiry import Reply, read_lifetime
from proxy.credentials.sources.reply_faults import doubt_lifetime
from proxy.credentials.sources.token_text import is_token

BYTES_MAX: Final = 1 << 20
"""As much of a file or an output is taken in; no token is near that."""
_AT_THE_EPOCH: Final = {"date": formatdate(0, usegmt=True)}
_DURATIONS: Final = frozenset({"seconds", "milliseconds"})
_CENTURY_SECONDS: Final = 100 * 365 * 86400.0
"""A longer life is a mistake of units."""
_JWT_DOTS: Final = 2  # RFC 7515 3.1: header, payload, signature


def as_text(raw: bytes, whence: str) -> str:
    """Decode UTF-8, with or without a byte order mark.

    Args:
        raw: What was read.
        whence: What it was read from, as the error says it: "the token file".

    Raises:
        TokenFetchError: it is not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TokenFetchError(f"{whence} is not valid UTF-8") from None  # that error holds the bytes


def as_json(text: str, whence: str) -> Any:
    """Parse JSON; `whence` as above.

    Raises:
        TokenFetchError: it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise TokenFetchError(f"{whence} is not valid JSON") from None


def as_token(value: Any, whence: str) -> str:
    """Take a value for the token; `whence` names its place.

    Raises:
        TokenFetchError: it is no string, empty, or not one line of printable ASCII.
    """
    if not isinstance(value, str) or not value:
        raise TokenFetchError(f"{whence} has no token")
    if not value.isascii() or not value.isprintable():
        raise TokenFetchError(f"{whence} has a token that is not one line of printable ASCII")
    if not is_token(value):
        raise TokenFetchError(f"{whence} has a token with spaces at its ends, or of more than 64 KiB")
    return value


def time_left(
    token: str, body: Any, expires: Iterable[tuple[str, str]], *, since: float, now: float, whence: str
) -> float | None:
    """Seconds that the token still lives, always above 0; None where nothing tells.

    Args:
        token: The token; where it is a JWT (RFC 7519) with `exp`, that counts after all of `expires`.
        body: The parsed JSON around it.
        expires: Candidates of (path, unit), in order of trust.
        since: From when durations count. This and `now` are seconds since the epoch.
        now: This host's clock.
        whence: What holds it, for the error.

    Raises:
        TokenFetchError: the token is past its end already.
    """
    # Measured at the epoch an instant is its own distance, also one that has gone by.
    reply = Reply(body, _AT_THE_EPOCH, 0.0)
    for path, unit in [*expires, *_own_end(token)]:
        told = read_lifetime([(path, unit)], reply, token, math.inf)
        left = None if told is None else told - now + (since if unit in _DURATIONS else 0.0)
        if left is None or left > _CENTURY_SECONDS:
            continue
        if left <= 0:
            raise TokenFetchError(f"{whence} has a token that is past its end")
        return left
    return None


def doubt_time_left(
    token: str, body: Any, expires: Sequence[tuple[str, str]], *, since: float, default_ttl: float
) -> LifetimeDoubt | None:
    """Explain a life that cannot be read, or that looks wrong; the arguments are those of `time_left`."""
    if not expires:
        return None
    return doubt_lifetime(
        [*expires, *_own_end(token)],
        Reply(body, {}, since),
        token,
        default_ttl=default_ttl,
        max_ttl=_CENTURY_SECONDS,
    )


def _own_end(token: str) -> list[tuple[str, str]]:
    return [("", "jwt")] if token.count(".") == _JWT_DOTS else []
