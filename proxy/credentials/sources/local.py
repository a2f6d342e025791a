"""Tokens from the settings and from files, and how to read tokens that come from this machine."""

import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Final, NamedTuple

from proxy.credentials.sources import TokenFetchError, TokenSource
from proxy.credentials.sources.reply import Reply, is_token, life_of, own_expiry
from proxy.credentials.sources.reply_faults import doubt_lifetime
from proxy.credentials.sources.side_thread import SideThread
from proxy.credentials.token import FetchedToken, LifetimeDoubt
from proxy.regular_files import open_regular
from proxy.secret import Secret
from proxy.settings import FileCredential, StaticCredential
from proxy.settings.credentials.http import candidates_of
from proxy.telemetry import get_logger

BYTES_MAX: Final = 1 << 20
"""The maximum size of a file or output, far larger than any token."""
_AT_THE_EPOCH: Final = {"date": formatdate(0, usegmt=True)}
_DURATIONS: Final = frozenset({"seconds", "milliseconds"})
_CENTURY_SECONDS: Final = 100 * 365 * 86400.0
"""A longer lifetime is a mistake in the unit."""


def as_text(raw: bytes, source: str) -> str:
    """Decode UTF-8, with or without a byte order mark.

    Args:
        raw: The content.
        source: Where it comes from, for the error: "the token file".

    Raises:
        TokenFetchError: It is not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TokenFetchError(f"{source} is not valid UTF-8") from None  # that error contains the bytes


def as_json(text: str, source: str) -> object:
    """Parse JSON; `source` names its place.

    Raises:
        TokenFetchError: It is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise TokenFetchError(f"{source} is not valid JSON") from None


def as_token(value: object, source: str) -> str:
    """Check that a value can be a token; `source` names its place.

    Raises:
        TokenFetchError: It is not a string, or empty, or not one line of printable ASCII.
    """
    if not isinstance(value, str) or not value:
        raise TokenFetchError(f"{source} has no token")
    if not value.isascii() or not value.isprintable():
        raise TokenFetchError(f"{source} has a token that is not one line of printable ASCII")
    if not is_token(value):
        raise TokenFetchError(f"{source} has a token with surrounding spaces, or of more than 64 KiB")
    return value


class TimeLeft(NamedTuple):
    """A remaining lifetime."""

    seconds: float
    """Always positive."""
    certain: bool
    """Whether it is a duration. A point in time was written by another clock than this host's."""


def time_left(
    token: str, body: object, expires: Iterable[tuple[str, str]], *, since: float, now: float, source: str
) -> TimeLeft | None:
    """Return the remaining lifetime; None if it is unknown.

    Args:
        token: The token. If it is a JWT (RFC 7519), its `exp` is used if no candidate in `expires` can be
        read.
        body: The parsed JSON around it.
        expires: Candidates of (path, unit), in order of preference.
        since: When durations start. This and `now` are seconds since the epoch.
        now: The time by this host's clock.
        source: Where the token comes from, for the error.

    Raises:
        TokenFetchError: The token has already expired.
    """
    # With a Date of 0, a point in time is read as the number of seconds since the epoch.
    reply = Reply(body, _AT_THE_EPOCH, 0.0)
    for path, unit in [*expires, *own_expiry(token)]:
        read = life_of(reply.find(path) if path else token, unit, reply)
        if read is None:
            continue
        left = read - now + (since if unit in _DURATIONS else 0.0)
        if left > _CENTURY_SECONDS:
            continue
        if left <= 0:
            raise TokenFetchError(f"{source} has a token that has expired")
        return TimeLeft(left, unit in _DURATIONS)
    return None


def doubt_time_left(
    token: str, body: object, expires: Sequence[tuple[str, str]], *, since: float, default_ttl: float
) -> LifetimeDoubt | None:
    """Explain a lifetime that cannot be read, or that looks wrong; for the arguments see `time_left`."""
    if not expires:
        return None
    return doubt_lifetime(
        [*expires, *own_expiry(token)],
        Reply(body, {}, since),
        token,
        default_ttl=default_ttl,
        max_ttl=_CENTURY_SECONDS,
    )


_SOURCE: Final = "the token file"
_HINT_FRACTION: Final = 0.85
"""The refresh hint, as a part of `max_age`: with its spread, the file is read again within 95% of that."""


class FileTokenSource(TokenSource):
    """Reads a token from a file that another program keeps up to date, and opens it by path at each fetch.

    Args:
        section: The file, and how to read it. Durations count from the modification time of the file.
        expires: Whether the token expires; otherwise it is used for as long as the file contains it.
    """

    def __init__(self, section: FileCredential, *, expires: bool = True) -> None:
        self._file = section
        self._candidates = candidates_of(section.expires)
        self._expires = expires
        self._side = SideThread()
        self._log = get_logger("credentials")
        self._doubt: LifetimeDoubt | None = None

    async def fetch(self) -> FetchedToken:
        """Read the token.

        Raises:
            TokenFetchError: The file cannot be read, or contains no valid token.
        """
        raw, changed = await self._side.run(lambda: _read(self._file.path))
        token, body = self._token_in(raw)
        life, certain, doubt = self._life(token, body, changed)
        if doubt is not None and doubt != self._doubt:  # the file is read every minute
            self._log.warning(doubt.event, reason=doubt.reason)
        self._doubt = doubt
        return FetchedToken(Secret(token), life, _HINT_FRACTION * self._file.max_age, doubt, certain)

    def _token_in(self, raw: bytes) -> tuple[str, object]:
        """Return the token, and the JSON around it."""
        text = as_text(raw, _SOURCE).strip()
        if not text:
            raise TokenFetchError(f"{_SOURCE} is empty")
        if self._file.token is None:
            body, token = None, as_token(text, _SOURCE)
        else:
            body = as_json(text, _SOURCE)
            found = Reply(body, {}, 0.0).find(self._file.token)
            token = as_token(found, f"{_SOURCE}, at {self._file.token!r},")
        return token, body

    def _life(self, token: str, body: object, changed: float) -> tuple[float, bool, LifetimeDoubt | None]:
        """Return the remaining lifetime, whether it is certain, and what looks wrong about it."""
        file = self._file
        if not self._expires:
            return math.inf, True, None
        now = time.time()
        # A modification time in the future, from another host's clock, counts as now.
        left = time_left(token, body, self._candidates, since=min(changed, now), now=now, source=_SOURCE)
        doubt = doubt_time_left(
            token, body, self._candidates, since=min(changed, now), default_ttl=file.default_ttl
        )
        if left is None:
            return file.default_ttl if self._candidates else math.inf, True, doubt
        return left.seconds, left.certain, doubt


def _read(path: Path) -> tuple[bytes, float]:
    """Return the content of a file and its modification time."""
    try:
        with open_regular(path) as file:
            changed = os.fstat(file.fileno()).st_mtime
            raw = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise TokenFetchError(f"{_SOURCE} cannot be read: {error.strerror}") from None
    if len(raw) > BYTES_MAX:
        raise TokenFetchError(f"{_SOURCE} is too large")
    return raw, changed


class StaticTokenSource(TokenSource):
    """Always returns the same token."""

    def __init__(self, value: Secret) -> None:
        self._token = FetchedToken(value, math.inf)

    async def fetch(self) -> FetchedToken:
        """Return the token."""
        return self._token


def static_source(section: StaticCredential) -> StaticTokenSource | FileTokenSource:
    """Build the source for a value or a file."""
    if section.file is not None:
        # The path was validated with this section.
        file = FileCredential.model_construct(source="file", path=section.file)
        return FileTokenSource(file, expires=False)
    return StaticTokenSource(section.value or Secret(""))
