"""Which public path becomes which upstream path, and which endpoint it is.

Routes hang at two mounts, `/agent/api/llm_proxy` and the root. At each, OpenAI's paths are served under
`/v1`, under `/v1/v1` (some clients append "v1" to a base URL that ends with it) and bare (others never append
it). Cohere's `/v2/rerank` is served beside them. The path that goes up is the caller's, byte for byte.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from proxy.errors import InvalidRequest, NotFound
from proxy.wire.endpoints import BARE_SEGMENTS, COHERE_RERANK, Endpoint, match

ORIGINAL_MOUNT: Final = "/agent/api/llm_proxy"
"""Where the Flask original hung its blueprint."""

_MOUNT: Final = ORIGINAL_MOUNT.encode()
_COHERE_RERANK: Final = f"/{COHERE_RERANK}".encode()
_ENDING_IN_A_SLASH: Final = frozenset({b"/", b"/chat/"})
"""Nothing is relayed there: the chat's page, and nothing at all."""
_FORBIDDEN: Final = re.compile(rb"[\x00-\x1f\x7f\\#]")
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_BARE: Final = frozenset(segment.encode() for segment in BARE_SEGMENTS)


class Target(NamedTuple):
    """Where a request goes, seen from the upstream's base URL."""

    endpoint: Endpoint
    path: bytes
    """The path as the caller sent it, without mount and version, and with its leading slash."""
    model: str | None = None
    """The model that the path names."""


def check_target(raw_path: bytes, query: bytes) -> None:
    """Refuse whatever two servers could read in two ways.

    Raises:
        InvalidRequest: an absolute form, a dot segment, an empty segment, a backslash, a control character, a
            fragment or a broken escape (RFC 3986 2.1, 3.3, 3.5 and 5.2.4), plain or percent-encoded.
    """
    if raw_path in _ENDING_IN_A_SLASH:
        return
    if not raw_path.startswith(b"/"):
        raise InvalidRequest("the request target must be a path")
    plain = raw_path
    if b"%" in raw_path:
        if _BROKEN_ESCAPE.search(raw_path):
            raise InvalidRequest("the path holds a broken percent escape")
        plain = unquote_to_bytes(raw_path)
    if _FORBIDDEN.search(plain) or b"#" in query:
        raise InvalidRequest("the request target holds a backslash, a fragment or a control character")
    if b"//" in raw_path or (len(raw_path) > 1 and raw_path.endswith(b"/")):
        raise InvalidRequest("the path holds an empty segment")
    if b"." in plain and any(_is_dot_segment(segment) for segment in raw_path.split(b"/")):
        raise InvalidRequest("the path holds a dot segment")


def find_target(method: str, raw_path: bytes) -> Target:
    """Strip mount and version from a checked path, and look its endpoint up.

    Servers read the same path differently: some ignore the case of letters, decode escapes or drop path
    parameters (`;x`) first. The endpoint is the one that the most lenient of them sees.

    Raises:
        InvalidRequest: a slash is encoded outside the id of a model.
        NotFound: nothing is relayed there.
    """
    path = raw_path.removeprefix(_MOUNT)
    if path.startswith(b"/v1/"):
        path = path[3:]
        if path.startswith(b"/v1/") or path == _COHERE_RERANK:
            path = path[3:]
    elif path == _COHERE_RERANK:
        path = path[3:]
    elif not (path.startswith(b"/") and _is_bare(path)):
        raise NotFound
    raw = path[1:].split(b"/")
    segments = [_as_read_leniently(segment) for segment in raw]
    versions = next((index for index, segment in enumerate(segments) if segment != "v1"), len(segments))
    endpoint, place = match(method, segments[versions:])
    named = [] if place is None else raw[versions:][place]
    if b"%" in path and sum(map(_slashes, raw)) > sum(map(_slashes, named)):
        raise InvalidRequest("a slash may only be encoded inside the id of a model")
    return Target(endpoint, path, "/".join(map(_decode, named)) if named else None)


def _is_bare(path: bytes) -> bool:
    first, _, rest = path[1:].partition(b"/")
    return first in _BARE or (first == b"chat" and rest.partition(b"/")[0] == b"completions")


def _decode(segment: bytes) -> str:
    if b"%" in segment:
        segment = unquote_to_bytes(segment)
    return segment.decode("utf-8", "replace")


def _as_read_leniently(segment: bytes) -> str:
    return _decode(segment).partition(";")[0].casefold()


def _slashes(segment: bytes) -> int:
    return unquote_to_bytes(segment).count(b"/") if b"%" in segment else 0


def _is_dot_segment(segment: bytes) -> bool:
    # "%2e%2e%2f" in one raw segment decodes to "../": look at the parts of the decoded segment too.
    return any(part in {b".", b".."} for part in unquote_to_bytes(segment).split(b"/"))
