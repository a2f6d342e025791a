"""A token in a file that somebody else keeps fresh: a projected service-account token, an agent's sink."""

import math
import os
import stat
import time
from pathlib import Path
from typing import Final

from proxy.credentials.credential import FetchedToken, LifetimeDoubt
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.expiry import Reply
from proxy.credentials.sources.local_token import (
    BYTES_MAX,
    as_json,
    as_text,
    as_token,
    doubt_time_left,
    time_left,
)
from proxy.credentials.sources.side_thread import SideThread
from proxy.secret import Secret
from proxy.settings import FileCredential
from proxy.settings.credentials.http import candidates_of
from proxy.telemetry import get_logger

_WHENCE: Final = "the token file"
_HINT_FRACTION: Final = 0.85
"""Of `max_age`: a hint is spread by a ninth, and the reading itself takes its time too."""


class FileTokenSource:
    """Reads the file anew at each fetch, by its path: a file or symbolic link that was swapped is seen.

    Args:
        section: Where it is, and how to read it. Durations count from the file's last change.
        ends: Whether the end of a JWT counts; otherwise the token is believed for as long as it is there.
    """

    def __init__(self, section: FileCredential, *, ends: bool = True) -> None:
        self._file = section
        self._expires = candidates_of(section.expires)
        self._ends = ends
        self._side = SideThread()
        self._log = get_logger("credentials")
        self._doubt: LifetimeDoubt | None = None

    async def fetch(self) -> FetchedToken:
        """Read the token.

        Raises:
            TokenFetchError: the file cannot be read, is empty, or holds no token that is still good.
        """
        raw, changed = await self._side.run(lambda: _read(self._file.path))
        token, body = self._token_in(raw)
        life, doubt = self._life(token, body, changed)
        if doubt is not None and doubt != self._doubt:  # the file is read every minute
            self._log.warning(doubt.event, reason=doubt.reason)
        self._doubt = doubt
        return FetchedToken(Secret(token), life, _HINT_FRACTION * self._file.max_age, doubt)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _token_in(self, raw: bytes) -> tuple[str, object]:
        """The token, and the JSON around it."""
        text = as_text(raw, _WHENCE).strip()
        if not text:
            raise TokenFetchError(f"{_WHENCE} is empty")
        if self._file.token is None:
            body, token = None, as_token(text, _WHENCE)
        else:
            body = as_json(text, _WHENCE)
            found = Reply(body, {}, 0.0).find(self._file.token)
            token = as_token(found, f"{_WHENCE}, at {self._file.token!r},")
        return token, body

    def _life(self, token: str, body: object, changed: float) -> tuple[float, LifetimeDoubt | None]:
        """The token's life, and what looks wrong about it."""
        file = self._file
        if not self._ends:
            return math.inf, None
        now = time.time()
        # A file from the future, by a clock of another host, counts from now.
        left = time_left(token, body, self._expires, since=min(changed, now), now=now, whence=_WHENCE)
        doubt = doubt_time_left(
            token, body, self._expires, since=min(changed, now), default_ttl=file.default_ttl
        )
        if left is None:
            return file.default_ttl if self._expires else math.inf, doubt
        return left, doubt


def _read(path: Path) -> tuple[bytes, float]:
    """The file's bytes and when it was last changed, in seconds since the epoch."""
    try:
        # Opening a named pipe would wait for its other end, in a thread that nothing could stop.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise TokenFetchError(f"{_WHENCE} is not a regular file")
            raw = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise TokenFetchError(f"{_WHENCE} cannot be read: {error.strerror}") from None
    if len(raw) > BYTES_MAX:
        raise TokenFetchError(f"{_WHENCE} is too large")
    return raw, status.st_mtime
