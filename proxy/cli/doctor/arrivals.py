"""Judge by arrival times whether something between a model and its caller buffers a stream (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from proxy.wire.headers import Headers, content_coding, find_header

EVENTS_MIN: Final = 6
"""Fewer events prove nothing."""
TOGETHER_SECONDS: Final = 0.003
"""Two events this close have arrived together: no model writes that fast."""
BUFFERED_SHARE: Final = 0.8
"""A stream counts as buffered from this share on of events that arrive together with the one before."""
NOTICEABLE_SECONDS: Final = 0.2
"""A response that is complete within this time is too quick to judge."""
_CDN_HEADERS: Final = (
    b"cf-ray", b"cf-cache-status", b"x-amz-cf-id", b"x-served-by", b"x-akamai-request-id", b"eagleid",
    b"x-swift-cachetime", b"x-cdn", b"x-cache", b"x-cache-lookup",
)  # fmt: skip
_CDN_SERVERS: Final = (b"cloudflare", b"akamai", b"cloudfront", b"tengine", b"cdn")
_COMPRESSED: Final = frozenset({b"gzip", b"x-gzip", b"deflate", b"br", b"zstd"})


@dataclass(frozen=True, slots=True)
class Timing:
    """When the events of a stream arrived, in seconds since the request was sent."""

    moments: Sequence[float]

    @property
    def together(self) -> float:
        """The share of events that arrived together with the one before."""
        gaps = [later - earlier for earlier, later in pairwise(self.moments)]
        return sum(gap < TOGETHER_SECONDS for gap in gaps) / len(gaps) if gaps else 0.0

    @property
    def last(self) -> float:
        """When the last event arrived."""
        return self.moments[-1] if self.moments else 0.0

    @property
    def can_be_judged(self) -> bool:
        """Whether there are enough events over enough time."""
        return len(self.moments) >= EVENTS_MIN and self.last >= NOTICEABLE_SECONDS

    @property
    def buffered(self) -> bool:
        """Whether events arrive in blocks."""
        return self.can_be_judged and self.together >= BUFFERED_SHARE


def buffering_cause(headers: Headers, version: str) -> str:
    """Return the id of the finding that names the likeliest cause of buffering.

    The most specific evidence counts: compression, then a CDN, then nginx, then what the framing shows.
    """
    if content_coding(headers) in _COMPRESSED:
        return "buffered_by_compression"
    server = (find_header(headers, b"server") or b"").lower()
    if any(find_header(headers, name) is not None for name in _CDN_HEADERS) or any(
        name in server for name in _CDN_SERVERS
    ):
        return "buffered_by_cdn"
    if b"nginx" in server or b"openresty" in server:
        return "buffered_by_nginx"
    if version == "1.0":
        return "buffered_by_http_1_0"
    if find_header(headers, b"content-length") is not None:
        return "buffered_whole"
    return "buffered_somewhere"
