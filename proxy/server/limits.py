"""The bounds of one connection and of their number, and the rejection of requests that exceed them."""

from http import HTTPStatus
from typing import Final

import msgspec

from proxy.descriptors import raise_descriptors_max
from proxy.wire.headers import Headers

BODY_BUFFER_BYTES: Final = 64 * 1024
"""Unread bytes of a body that may wait here; beyond it the connection is not read."""
PIPELINE_MAX: Final = 16
"""Maximum number of pipelined requests that wait. A connection with more is closed."""
LINGER_SECONDS: Final = 2.0
"""How long the rest of an unread request is read and discarded, so that its sender can read the response."""
LINGER_BYTES: Final = 1 << 20
CHUNK_OVERHEAD_BYTES: Final = 16 * 1024
"""Bytes of chunk sizes, extensions and trailers that any body may have."""
CHUNK_OVERHEAD_RATIO: Final = 16
"""Further bytes of framing for each byte of the body."""
REQUEST_LINE_SPARE: Final = 64
"""Upper bound for the method, the version and the spaces of a request line."""
PROBE_SECONDS: Final = 0.05
"""How long the kernel of a caller that has closed its connection takes to answer a probe with a reset."""
PROBE_PAUSES: Final = (2.0, 8.0, 32.0)
"""Seconds from one probe of a half-closed caller to the next while its response pauses.

They are few, because clients limit the digits of a chunk size (Go: 16) and the interim responses (Go: 5).
After the last one, only the kernel keeps asking.
"""
UNPROBED_SECONDS: Final = 2.0
"""How long a response may pause for a half-closed caller that cannot be probed."""

FIRST_REQUEST_SECONDS: Final = 1.0
"""A connection that was opened just before a drain may take this long to send its request."""
SURPLUS_MAX: Final = 256
"""Connections beyond the limit that are being answered 503; further ones are closed without a response."""
DESCRIPTORS_OF_CONNECTION: Final = 2
"""One for the caller, and one for the upstream."""
DESCRIPTORS_RESERVED: Final = 64 + SURPLUS_MAX
"""Descriptors for everything else: files, listeners, token sources, Redis, rejected connections."""


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one connection: sizes in bytes, times in seconds.

    Args:
        target_bytes: The longest request target; a longer one is answered 414.
        head_bytes: The request line and all header lines; more is answered 431.
        headers: The number of header lines; more are answered 431.
        idle_seconds: The time between two requests.
        head_seconds: The time from the first byte of a request, or from the opening of the connection, to the
            end of the head; more is answered 408.
        window_seconds: The time within which a body and a response must make progress.
        body_bytes: How much of a request body must arrive in each window while it is read; less is 408.
        response_bytes: How much of a waiting response the caller must take in each window; less aborts it.
        requests: The number of requests on one connection.
    """

    target_bytes: int = 16 * 1024
    head_bytes: int = 64 * 1024
    headers: int = 200
    idle_seconds: float = 75.0
    head_seconds: float = 20.0
    window_seconds: float = 60.0
    body_bytes: int = 1024
    response_bytes: int = 1
    requests: int = 100_000


def fit_connections(wanted: int) -> int:
    """Raise the process's limit of open files for so many connections; return how many of them it allows.

    Without a free descriptor, no caller could connect, and no request could reach an upstream.
    """
    limit = raise_descriptors_max(descriptors_for(wanted))
    # Where the reserve would take most of a small limit, the connections share half of it.
    share = max(limit - DESCRIPTORS_RESERVED, limit / 2) / DESCRIPTORS_OF_CONNECTION
    return int(min(wanted, max(share, 1)))


def descriptors_for(connections: int) -> int:
    """Return how many open files a process with so many connections needs."""
    return DESCRIPTORS_OF_CONNECTION * connections + DESCRIPTORS_RESERVED


class RequestRejected(Exception):
    """A request that the server itself rejects. The connection is closed after the response.

    Args:
        status: The status of the response.
        reason: The fault, for the caller and the log, without bytes of the request.
        headers: Further headers of the response.
    """

    def __init__(self, status: HTTPStatus, reason: str, headers: Headers | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or []
