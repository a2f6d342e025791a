"""The state of a running gateway: its options, its counters and the tokens it has issued."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from quart import current_app

MAX_LIVE_TOKENS = 65_536
"""Bounds the memory of a busy gateway: beyond this, the oldest token is revoked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayOptions:
    """How the gateway behaves; times are in seconds, statuses are HTTP's.

    Args:
        token_ttl: Lifetime of an issued token.
        word_delay: Pause between the pieces of a streamed answer.
        api_key: A single key that `/v1` accepts instead of tokens.
        app_id: Client id, the same for both token endpoints.
        app_secret: Client secret.
        first_byte_delay: Pause before the headers of a response under `/v1`.
        token_delay: Pause before a token endpoint answers.
        token_status: Any status other than 200 makes the token endpoints fail with it.
        status: Any status other than 200 makes every path under `/v1` fail with it.
        cut_after: Abort a stream after this many events, without the final chunk.
        stall_after: Send nothing more after this many events, until the caller disconnects.
        reject_tokens: Reject every token, even valid ones.
    """

    token_ttl: float = 300.0
    word_delay: float = 0.1
    api_key: str | None = None
    app_id: str = "demo"
    app_secret: str = "demo-secret"  # noqa: S105  the demonstration's documented secret
    first_byte_delay: float = 0.0
    token_delay: float = 0.0
    token_status: int = 200
    status: int = 200
    cut_after: int | None = None
    stall_after: int | None = None
    reject_tokens: bool = False


@dataclass(slots=True)
class GatewayStats:
    """Counters since the start, which anyone may see."""

    token_fetches: int = 0
    token_fetches_in_flight: int = 0
    token_fetches_at_once_max: int = 0
    tokens_rejected: int = 0
    chat_requests: int = 0
    embedding_requests: int = 0
    streams_open: int = 0
    streams_closed_early: int = 0


class TokenIssuer:
    """Issues random tokens that expire.

    Args:
        clock: A monotonic clock in seconds, such as `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._expiry: dict[str, float] = {}  # in order of issue

    def __len__(self) -> int:
        return len(self._expiry)

    def issue(self, ttl: float) -> str:
        """Return a new token that is valid for `ttl` seconds."""
        self._prune()
        token = secrets.token_urlsafe(32)
        self._expiry[token] = self._clock() + ttl
        return token

    def accepts(self, token: str) -> bool:
        """Return whether the token was issued here and is neither expired nor revoked."""
        expiry = self._expiry.get(token)
        return expiry is not None and self._clock() < expiry

    def revoke_all(self) -> None:
        """Revoke every token."""
        self._expiry.clear()

    def _prune(self) -> None:
        """Remove the oldest tokens while they are expired or there are too many."""
        now = self._clock()
        while self._expiry:
            oldest = next(iter(self._expiry))
            if self._expiry[oldest] > now and len(self._expiry) < MAX_LIVE_TOKENS:
                return
            del self._expiry[oldest]


class DemoGateway:
    """The state of one gateway. Assigning `options` takes effect with the next request."""

    def __init__(self, options: GatewayOptions, clock: Callable[[], float]) -> None:
        self.options = options
        self.stats = GatewayStats()
        self.tokens = TokenIssuer(clock)

    @contextmanager
    def counting_fetch(self) -> Iterator[None]:
        """Count a token request, and how many are in flight at once."""
        stats = self.stats
        stats.token_fetches += 1
        stats.token_fetches_in_flight += 1
        stats.token_fetches_at_once_max = max(stats.token_fetches_at_once_max, stats.token_fetches_in_flight)
        try:
            yield
        finally:
            stats.token_fetches_in_flight -= 1


def current_gateway() -> DemoGateway:
    """Return the gateway that is serving the current request."""
    return cast(DemoGateway, current_app.extensions["gateway"])
