"""Map a public path to the upstream's path and to an endpoint.

Routes are served at two mounts, `/agent/api/llm_proxy` and the root. At each, OpenAI's paths are served under
`/v1`, under `/v1/v1` (some clients append "v1" to a base URL that already ends with it), and bare (others
never append it). Cohere's `/v2/rerank` is served too. The bytes of the path do not change on the way.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from proxy.errors import InvalidRequest, NotFound
from proxy.wire.characters import NUMBER_SIGN, PERCENT, SLASH
from proxy.wire.endpoints import BARE_SEGMENTS, COHERE_RERANK, FIXED_PATHS, Endpoint, match
from proxy.wire.normal_forms import normalize

ORIGINAL_MOUNT: Final = "/agent/api/llm_proxy"
"""The mount of the original Flask proxy."""

_MOUNT: Final = ORIGINAL_MOUNT.encode()
_COHERE_RERANK: Final = f"/{COHERE_RERANK}".encode()
BASE_URLS: Final = tuple(
    f"{mount}{version}{slash}"
    for mount, version in (("", "/v1"), (ORIGINAL_MOUNT, ""), (ORIGINAL_MOUNT, "/v1"))
    for slash in ("", "/")
)
"""The addresses that clients use as base URLs. Requests to them are not relayed."""
_ENDING_IN_A_SLASH: Final = frozenset({b"/", b"/chat/", *(path.encode() for path in BASE_URLS)})
"""Paths with a trailing slash that are allowed, because they are not relayed."""
_PLAIN: Final = re.compile(rb"(?:/(?![.])[A-Za-z0-9._~:@!$&'()*+,=-]++)++")
"""Paths that all servers read alike."""
_NOT_VISIBLE: Final = re.compile(rb"[^\x21-\x7e]")
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f\\#]")
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_END_OF_NAME: Final = re.compile("[;?]")
"""Characters that end the name of a segment for some servers: parameters, or an encoded query."""
_LOOKALIKES: Final = str.maketrans({
    "\u2024": ".", "\u2025": "..", "\u2026": "...", "\u3002": ".", "\ufe52": ".", "\uff0e": ".",
    "\uff61": ".", "\u2044": "/", "\u2215": "/", "\uff0f": "/", "\ufe68": "\\", "\uff3c": "\\",
    "\uff1b": ";",
})  # fmt: skip
"""Characters that become dots, slashes and semicolons by Unicode normalisation (NFKC, Windows' best fit)."""
_DECODINGS_MAX: Final = 3
_LOGGED_AS_SENT: Final = re.compile(rb"(?:/(?![sS][kK]-)[A-Za-z0-9._~-]++)++")
_NOT_A_PATH: Final = "(not a path)"
_REST: Final = "..."
_BEFORE_VALUES: Final = re.compile(r"//|[?;&#=%\\]")
"""What precedes a query, parameters or a URL with userinfo; `%` is left only after too many escapes."""
_USUAL_PATHS: Final = {
    prefix + path: (prefix + path).decode()
    for prefix in (b"/v1", b"", _MOUNT + b"/v1", _MOUNT)
    for _, path in FIXED_PATHS
}
"""Paths of most requests: a dictionary answers ten times as fast as an expression."""
_BARE: Final = frozenset(segment.encode() for segment in BARE_SEGMENTS)


class Target(msgspec.Struct, frozen=True):
    """The endpoint and the upstream path of a request."""

    endpoint: Endpoint
    path: bytes
    """The caller's path without mount and version, with its leading slash."""
    model: str | None = None
    """The model in the path."""


def check_target(raw_path: bytes, query: bytes) -> None:
    """Reject a path that some server could read as another path, or as one outside the base URL.

    The rules apply to the path as sent and to each result of decoding it repeatedly.

    Raises:
        InvalidRequest: The path has an absolute form, a dot segment (also before path parameters), an empty
            segment, a backslash, a control character, a fragment, a broken or too often repeated escape, or
            bytes that are not UTF-8 (RFC 3986 2.1, 3.3, 3.5 and 5.2.4).
    """
    if _NOT_VISIBLE.search(query) or NUMBER_SIGN in query:
        raise InvalidRequest("the query contains a fragment or a character that must be percent-encoded")
    if raw_path in _ENDING_IN_A_SLASH or _PLAIN.fullmatch(raw_path):
        return
    if not raw_path.startswith(b"/"):
        raise InvalidRequest("the request target must be a path")
    if _NOT_VISIBLE.search(raw_path):
        raise InvalidRequest("the path contains a character that must be percent-encoded")
    if _BROKEN_ESCAPE.search(raw_path):
        raise InvalidRequest("the path contains a broken percent escape")
    for reading in _readings(raw_path):
        _check_reading(reading)


def _readings(path: bytes) -> Iterator[bytes]:
    """Yield the path, and the result of each decoding."""
    yield path
    for _ in range(_DECODINGS_MAX):
        decoded = unquote_to_bytes(path)
        if decoded == path:
            return
        yield decoded
        path = decoded
    if unquote_to_bytes(path) != path:
        raise InvalidRequest("the path is percent-encoded too many times")


def _check_reading(path: bytes) -> None:
    try:
        text = path.decode().translate(_LOOKALIKES)
    except UnicodeDecodeError as error:
        raise InvalidRequest("the path is not valid UTF-8") from error
    if _FORBIDDEN.search(text):
        raise InvalidRequest("the path contains a backslash, a fragment or a control character")
    for segment in text[1:].split("/"):
        name = _END_OF_NAME.split(segment, 1)[0].strip()
        if not name:
            raise InvalidRequest("the path contains an empty segment")
        if not name.strip(". "):
            raise InvalidRequest("the path contains a dot segment")


def loggable_path(raw_path: bytes) -> str:
    """Return a path without what may be a secret, for logs and traces: its readable beginning.

    A query or a userinfo is not always where it belongs: some clients encode the question mark, write
    parameters into the path, or send a URL as the target. Also for paths that `check_target` rejects.
    """
    usual = _USUAL_PATHS.get(raw_path)
    if usual is not None:
        return usual
    if _LOGGED_AS_SENT.fullmatch(raw_path):
        return raw_path.decode("ascii")
    if not raw_path.startswith(b"/"):
        return "*" if raw_path == b"*" else _NOT_A_PATH
    decoded = raw_path
    for _ in range(_DECODINGS_MAX):
        decoded = unquote_to_bytes(decoded)
    text = normalize("NFKC", decoded.decode("utf-8", "replace"))
    end = _BEFORE_VALUES.search(text)
    shown = text if end is None else text[: end.start()]
    segments = shown.split("/")
    for index, segment in enumerate(segments):
        if _may_be_secret(segment):
            return "/".join([*segments[:index], _REST])
    return shown if end is None else shown + _REST


def _may_be_secret(segment: str) -> bool:
    """Whether it begins with a userinfo and its password (RFC 3986 3.2.1), or is an API key (`/KEY/v1`)."""
    userinfo, at, _ = segment.partition("@")
    return bool(at and ":" in userinfo) or segment.casefold().startswith("sk-")


def find_target(method: str, raw_path: bytes) -> Target:
    """Strip mount and version from a checked path, and find its endpoint.

    Some servers ignore case, decode escapes or drop path parameters (`;x`) first. The endpoint is the one
    that the most lenient server would choose.

    Raises:
        InvalidRequest: A slash is encoded outside the id of a model.
        NotFound: The path is not relayed.
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
    known = FIXED_PATHS.get((method, path))
    if known is not None:
        return Target(known, path)
    if path == b"/":
        raise NotFound
    raw = path[1:].split(b"/")
    read = raw if PERCENT not in path else [_last_reading(segment) for segment in raw]
    segments = [segment.partition(b";")[0].decode("utf-8", "replace").casefold() for segment in read]
    versions = next((index for index, segment in enumerate(segments) if segment != "v1"), len(segments))
    endpoint, place = match(method, segments[versions:])
    outside = read if place is None else [*read[:versions], *_without(read[versions:], place)]
    if any(SLASH in segment for segment in outside):
        raise InvalidRequest("a slash may only be encoded inside the id of a model")
    if place is None:
        return Target(endpoint, path)
    return Target(endpoint, path, "/".join(map(_decode, raw[versions:][place])))


def _is_bare(path: bytes) -> bool:
    first, _, rest = path[1:].partition(b"/")
    return first in _BARE or (first == b"chat" and rest.partition(b"/")[0] == b"completions")


def _decode(segment: bytes) -> str:
    return unquote_to_bytes(segment).decode("utf-8", "replace")


def _without(segments: list[bytes], place: slice) -> list[bytes]:
    rest = segments.copy()
    del rest[place]
    return rest


def _last_reading(segment: bytes) -> bytes:
    *_, last = _readings(segment)
    return last
