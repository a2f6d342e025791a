"""A request as the caller sent it, and as it goes to one upstream."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from proxy.access import Caller
from proxy.wire.endpoints import OTHER, Endpoint
from proxy.wire.headers import Headers
from proxy.wire.request_model import InspectedRequest


class CallerRequest(InspectedRequest, frozen=True, kw_only=True):
    """One request of a caller. `query`, `headers` and `body` are the caller's own bytes.

    Args:
        request_id: The caller's, or one of ours.
        method: The HTTP method.
        path: The raw path below mount and version, with its leading slash.
        caller: Who sent it, and what this caller may do.
        model: The model that the request names, by which it is routed.
        rest: The bytes after `body`, if it is not read as a whole; such a request can be sent only once.
        content_length: The length of a body that is not read as a whole, if the caller announced it.
    """

    request_id: str
    method: str
    path: bytes
    caller: Caller
    model: str | None = None
    rest: AsyncIterator[bytes] | None = None
    content_length: int | None = None

    @property
    def is_stream(self) -> bool:
        """Whether the JSON body asks for an event stream."""
        return self.fields.stream


class SendClock(Protocol):
    """Bounds the wait for an upstream; see `proxy.upstream.clock.ExchangeClock`."""

    def suspend(self) -> None:
        """Suspend the timeout during a wait that has its own."""

    def restart(self) -> None:
        """Restart the timeout: the request goes out."""


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it goes to one upstream, without the credential.

    Args:
        method: The HTTP method.
        path: Raw path below the upstream's base URL, with its leading slash.
        query: Raw query without its question mark.
        headers: See `proxy.wire.headers.request_headers`.
        body: Held bytes, which can be sent again, or a stream, which cannot.
        content_length: The length of a streamed body, if the caller announced it.
        clock: Its timeout is suspended during a wait for a token.
        subprotocols: The subprotocols to offer (RFC 6455 1.9); the request is the handshake of a WebSocket.
        caller: The caller's name; token fetches after a rejection are rationed per caller.
        endpoint, model: What the request is for; a token may be valid for some requests only.
    """

    method: str
    path: bytes
    query: bytes
    headers: Headers
    body: bytes | AsyncIterator[bytes]
    content_length: int | None = None
    clock: SendClock | None = None
    subprotocols: Sequence[str] | None = None
    caller: str = ""
    endpoint: Endpoint = OTHER
    model: str | None = None
