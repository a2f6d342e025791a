"""Which public path becomes which upstream path.

Routes hang at two mounts, `/agent/api/llm_proxy` and the root; at each, OpenAI's paths are served under
`/v1`, under `/v1/v1` (clients that append "v1" to a base that has it) and bare (clients that never append
it). Cohere's `/v2/rerank` stands beside them. All rules work on the raw, still encoded path, so that `%2F`
inside a model's name arrives as sent.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from proxy.errors import InvalidRequest, NotFound

ORIGINAL_MOUNT: Final = "/agent/api/llm_proxy"
"""Where the Flask original hung its blueprint."""

BARE_SEGMENTS: Final = (
    "assistants",
    "audio",
    "batches",
    "completions",
    "containers",
    "conversations",
    "embeddings",
    "evals",
    "files",
    "fine_tuning",
    "images",
    "models",
    "moderations",
    "realtime",
    "rerank",
    "responses",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
)
"""First segments that are relayed without `/v1`; of `/chat/` only `completions` is OpenAI's."""

COHERE_RERANK: Final = "/v2/rerank"
"""Where Cohere's client posts; its body and its answer are those of `/v1/rerank`."""

_MOUNT: Final = ORIGINAL_MOUNT.encode()
_COHERE_RERANK: Final = COHERE_RERANK.encode()
_ENDING_IN_A_SLASH: Final = frozenset({b"/", b"/chat/"})
"""Nothing is relayed there: the chat's page, and nothing at all."""
_FORBIDDEN: Final = re.compile(rb"[\x00-\x1f\x7f\\#]")
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_BARE: Final = frozenset(segment.encode() for segment in BARE_SEGMENTS)


class Target(NamedTuple):
    """Where a request goes, seen from the upstream's base URL."""

    endpoint: str
    """Decoded path below the version, such as `chat/completions`: what routing looks at."""
    path: bytes
    """The same path as it was sent, with its leading slash: what goes up."""


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


def find_target(raw_path: bytes) -> Target:
    """Strip mount and version from a checked path.

    Raises:
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
    return Target("/".join(_decode(segment) for segment in path[1:].split(b"/")), path)


def _is_bare(path: bytes) -> bool:
    first, _, rest = path[1:].partition(b"/")
    return first in _BARE or (first == b"chat" and rest.partition(b"/")[0] == b"completions")


def _decode(segment: bytes) -> str:
    if b"%" not in segment:
        return segment.decode("latin-1")
    # An encoded slash stays encoded, so that it never joins the endpoint's own.
    return unquote_to_bytes(segment.replace(b"%2F", b"%252F").replace(b"%2f", b"%252f")).decode(
        "utf-8", "replace"
    )


def _is_dot_segment(segment: bytes) -> bool:
    # "%2e%2e%2f" in one raw segment decodes to "../": look at the parts of the decoded segment too.
    return any(part in {b".", b".."} for part in unquote_to_bytes(segment).split(b"/"))
