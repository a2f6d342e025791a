"""Tokens that really expire: random strings, each with the instant of its end on a monotonic clock."""

import secrets
from collections.abc import Callable

MAX_LIVE_TOKENS = 65_536
"""Bounds the memory of a gateway that is asked without end; beyond it the oldest token goes."""


class TokenIssuer:
    """Issue tokens and say which of them still live.

    Args:
        clock: Seconds that never go back, such as `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._expiry: dict[str, float] = {}  # in order of issue

    def __len__(self) -> int:
        return len(self._expiry)

    def issue(self, ttl: float) -> str:
        """Make a token that is good for `ttl` seconds."""
        self._prune()
        token = secrets.token_urlsafe(32)
        self._expiry[token] = self._clock() + ttl
        return token

    def accepts(self, token: str) -> bool:
        """Tell whether the token was issued here, and neither expired nor was revoked."""
        expiry = self._expiry.get(token)
        return expiry is not None and self._clock() < expiry

    def revoke_all(self) -> None:
        """Forget every token: each is refused from now on."""
        self._expiry.clear()

    def _prune(self) -> None:
        """Drop from the old end what is dead, or too much."""
        now = self._clock()
        while self._expiry:
            oldest = next(iter(self._expiry))
            if self._expiry[oldest] > now and len(self._expiry) < MAX_LIVE_TOKENS:
                return
            del self._expiry[oldest]
