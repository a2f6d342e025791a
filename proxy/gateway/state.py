"""What one running gateway holds: options, counters and tokens, reachable from its views and its tests."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

from quart import current_app
from quart.wrappers import Request

from proxy.gateway.issuer import TokenIssuer
from proxy.gateway.options import GatewayOptions


@dataclass(slots=True)
class GatewayStats:
    """Counters since the start, and the last request under `/v1` as it arrived.

    `last_request_body` holds bodies that were read whole (chat, completions, embeddings), else nothing.
    Header names are lower-case, the target is path and query before any decoding.
    """

    token_fetches: int = 0
    token_fetches_in_flight: int = 0
    token_fetches_at_once_max: int = 0
    tokens_refused: int = 0
    chat_requests: int = 0
    embedding_requests: int = 0
    streams_open: int = 0
    streams_closed_early: int = 0
    oddities_played: dict[str, int] = field(default_factory=dict)
    last_request_headers: list[tuple[str, str]] = field(default_factory=list)
    last_request_body: bytes = b""
    last_request_target: str = ""

    def counters(self) -> dict[str, int]:
        """The numbers alone: what may be shown to anybody."""
        return {name: value for name in self.__slots__ if isinstance(value := getattr(self, name), int)}

    def note_arrival(self, request: Request) -> None:
        """Keep how the request came in."""
        self.last_request_headers = raw_headers(request)
        self.last_request_target = raw_target(request)
        self.last_request_body = b""


class Gateway:
    """The state of one gateway. Replace `options` at any time: the next request sees them."""

    def __init__(self, options: GatewayOptions, clock: Callable[[], float]) -> None:
        self.options = options
        self.stats = GatewayStats()
        self.tokens = TokenIssuer(clock)

    @contextmanager
    def counting_fetch(self) -> Iterator[None]:
        """Count one request for a token, and how many run at once."""
        stats = self.stats
        stats.token_fetches += 1
        stats.token_fetches_in_flight += 1
        stats.token_fetches_at_once_max = max(stats.token_fetches_at_once_max, stats.token_fetches_in_flight)
        try:
            yield
        finally:
            stats.token_fetches_in_flight -= 1


def current_gateway() -> Gateway:
    """The gateway that the current request came to."""
    return cast(Gateway, current_app.extensions["gateway"])


def raw_headers(request: Request) -> list[tuple[str, str]]:
    """Headers from the ASGI scope: Quart's own mapping adds a `Remote-Addr` and changes the case."""
    return [
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.scope["headers"]
    ]


def raw_target(request: Request) -> str:
    """Path and query of the request line, `%2F` and the like as they came."""
    path, query = request.scope["raw_path"], request.scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")
