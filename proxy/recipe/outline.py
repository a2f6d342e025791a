"""Show the structure of a reply and its error message, but nothing that may be secret."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from proxy.credentials.sources.reply import embedded
from proxy.credentials.sources.reply_faults import is_html_text
from proxy.secret import MASK
from proxy.secret_detection import is_explanation, is_harmless_reply, is_random, mask_explanation
from proxy.settings.section import quoted

LINES_MAX: Final = 60
_KEY_LENGTH_MAX: Final = 40
_DEPTH_MAX: Final = 20
_TITLE: Final = re.compile(r"<title[^<>]{0,200}>([^<]{1,200})", re.IGNORECASE)
_HEAD_CHARACTERS: Final = 4096


def outline(
    body: object, text: str = "", headers: Mapping[str, str] | None = None, secrets: Collection[str] = ()
) -> str:
    """Write one line per value: its path, and the value, or `********` and its length.

    Only harmless values and error messages (`errmsg`, `error_description` and similar) are shown.

    Args:
        body: Parsed JSON; None if the reply is not JSON.
        text: The body as text, of which only the kind and the size are shown if it is not JSON.
        headers: Headers to show as well.
        secrets: Values to mask everywhere: the secrets that were sent, and the token.
    """
    lines = [(f"header {name}", _masked(value)) for name, value in (headers or {}).items()]
    if body is None:
        lines.append(("(text)", _text(text, secrets)))
    else:
        lines += [(_path(path, secrets), _value(path, value, secrets)) for path, value in leaves(body)]
    shown = lines[:LINES_MAX]
    width = max((len(path) for path, _ in shown), default=0)
    more = [f"  ... and {len(lines) - LINES_MAX} more"] if len(lines) > LINES_MAX else []
    return "\n".join([*(f"  {path:<{width}}  {value}" for path, value in shown), *more])


def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield all values with their paths. Non-empty objects, arrays and JSON in strings are expanded."""
    if isinstance(value, str) and len(path) < _DEPTH_MAX and (inside := embedded(value)):
        value = inside
    if isinstance(value, dict) and value and len(path) < _DEPTH_MAX:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value and len(path) < _DEPTH_MAX:
        for index, item in enumerate(value):
            yield from leaves(item, (*path, str(index)))
    else:
        yield path, value


def name_of(path: tuple[str, ...]) -> str:
    """Return the name of a value; items of a list have the name of the list."""
    return next((step for step in reversed(path) if not step.isdigit()), "")


def _path(path: tuple[str, ...], secrets: Collection[str]) -> str:
    return ".".join(_key(key, secrets) for key in path) or "(all)"


def _key(key: str, secrets: Collection[str]) -> str:
    if len(key) > _KEY_LENGTH_MAX or is_random(key) or key in secrets:  # likely a value and not a name
        return MASK
    return key if key.isprintable() else quoted(key)


def _value(path: tuple[str, ...], value: object, secrets: Collection[str]) -> str:
    if isinstance(value, dict | list):
        return "{...}" if value else json.dumps(value)
    name = name_of(path)
    is_secret = any(secret and secret in str(value) for secret in secrets)
    if not is_secret and is_harmless_reply(name, value):
        return quoted(value) if isinstance(value, str) else json.dumps(value)
    if isinstance(value, str) and is_explanation(name):
        return quoted(mask_explanation(value, secrets))
    return _masked(value)


def _masked(value: object) -> str:
    return f"{MASK} ({len(value)} characters)" if isinstance(value, str) else f"{MASK} (a number)"


def _text(text: str, secrets: Collection[str]) -> str:
    if not is_html_text(text):
        return _masked(text)
    title = _TITLE.search(text[:_HEAD_CHARACTERS])
    titled = f", titled {quoted(mask_explanation(title[1], secrets))}" if title else ""
    return f"an HTML page of {len(text)} characters{titled}"
