"""Show the structure of a token endpoint's reply without what it says: paths, sizes, numbers, short words."""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from proxy.secret import MASK
from proxy.settings.problems import quoted

SHOWN_LENGTH_MAX: Final = 8
LINES_MAX: Final = 60
_KEY_LENGTH_MAX: Final = 40
_DEPTH_MAX: Final = 20
_KNOWN_WORDS: Final = frozenset(  # RFC 6749 4.1.2.1, 5.2; RFC 7009 2.2.1
    {
        *("access_denied", "invalid_client", "invalid_grant", "invalid_request", "invalid_scope"),
        *("server_error", "temporarily_unavailable", "unauthorized_client", "unsupported_grant_type"),
        *("unsupported_response_type", "unsupported_token_type", "client_credentials"),
    }
)


def outline(
    body: Any, text: str = "", headers: Mapping[str, str] | None = None, secrets: Collection[str] = ()
) -> str:
    """One line a value: its path, and the value, or `********` and its length where it may tell something.

    Args:
        body: Parsed JSON, None where the reply is none.
        text: The body as text, of which then only the size is shown.
        headers: Those to show beside it.
        secrets: What must not show even where it is short.
    """
    lines = [(f"header {name}", value) for name, value in (headers or {}).items()]
    found = leaves(body) if body is not None else [("(text)", text)]
    lines += [(_path(path), value) for path, value in found]
    shown = [(path, _value(value, secrets)) for path, value in lines[:LINES_MAX]]
    width = max((len(path) for path, _ in shown), default=0)
    more = [f"  ... and {len(lines) - LINES_MAX} more"] if len(lines) > LINES_MAX else []
    return "\n".join([*(f"  {path:<{width}}  {value}" for path, value in shown), *more])


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value below, objects and arrays opened up; empty or very deep ones as they are."""
    if isinstance(value, dict) and value and len(path) < _DEPTH_MAX:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value and len(path) < _DEPTH_MAX:
        for index, item in enumerate(value):
            yield from leaves(item, (*path, str(index)))
    else:
        yield path, value


def _path(path: tuple[str, ...] | str) -> str:
    if isinstance(path, str):
        return path
    return ".".join(_key(key) for key in path) or "(all)"


def _key(key: str) -> str:
    if len(key) > _KEY_LENGTH_MAX:  # rather a value than a name
        return MASK
    return key if key.isprintable() else quoted(key)


def _value(value: Any, secrets: Collection[str]) -> str:
    if isinstance(value, dict | list):
        return "{...}" if value else json.dumps(value)
    if not isinstance(value, str):
        shown = json.dumps(value)
        return MASK if shown in secrets else shown
    held = any(secret and secret in value for secret in secrets)
    if value in _KNOWN_WORDS or (len(value) <= SHOWN_LENGTH_MAX and not held):
        return quoted(value)
    return f"{MASK} ({len(value)} characters)"
