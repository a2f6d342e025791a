"""Show the structure of a reply and its error message, but nothing that may be secret."""

import base64
import binascii
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from proxy.credentials.sources.reply import embedded
from proxy.credentials.sources.reply_faults import is_html_text
from proxy.secret import MASK
from proxy.secret_detection import (
    SECRET_LENGTH_MIN,
    is_explanation,
    is_harmless_reply,
    is_random,
    mask_explanation,
)
from proxy.settings.section import quoted
from proxy.wire.redaction import Redactor

LINES_MAX: Final = 60
_KEY_LENGTH_MAX: Final = 40
_DEPTH_MAX: Final = 20
_TITLE: Final = re.compile(r"<title[^<>]{0,200}>([^<]{1,200})", re.IGNORECASE)
_HEAD_CHARACTERS: Final = 4096
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_ASTERISKS: Final = re.compile(r"\*{8,}")
"""Their number would show the length of a secret."""
_URL_SAFE: Final = str.maketrans("-_", "+/")


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
    sent = _Sent(secrets)
    if body is None:
        lines.append(("(text)", _text(text, sent)))
    else:
        lines += [(_path(path, sent), _value(path, value, sent)) for path, value in leaves(body)]
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


class _Sent:
    """The secrets that an endpoint may repeat, as they are or encoded.

    Args:
        secrets: See `outline`.
    """

    def __init__(self, secrets: Collection[str]) -> None:
        self.secrets = secrets
        self._redactor = Redactor(secrets)

    def mask(self, text: str) -> str:
        """Mask the secrets in a text, and base64 that contains one, such as `id:secret` of HTTP Basic."""
        shown = _BASE64.sub(lambda word: MASK if self._is_inside(word[0]) else word[0], text)
        encoded = self._redactor.redact(shown.encode(errors="surrogatepass"))
        return _ASTERISKS.sub(lambda _: MASK, encoded.decode(errors="surrogatepass"))

    def _is_inside(self, word: str) -> bool:
        padded = word.rstrip("=").translate(_URL_SAFE)
        try:
            inside = base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
        except binascii.Error:  # one character too many
            return False
        return any(len(secret) >= SECRET_LENGTH_MIN and secret.encode() in inside for secret in self.secrets)


def _path(path: tuple[str, ...], sent: _Sent) -> str:
    return ".".join(_key(key, sent) for key in path) or "(all)"


def _key(key: str, sent: _Sent) -> str:
    is_value = len(key) > _KEY_LENGTH_MAX or is_random(key)  # probably, and not a name
    if is_value or sent.mask(key) != key or key in sent.secrets:
        return MASK
    return key if key.isprintable() else quoted(key)


def _value(path: tuple[str, ...], value: object, sent: _Sent) -> str:
    if isinstance(value, dict | list):
        return "{...}" if value else json.dumps(value)
    name = name_of(path)
    text = str(value)
    is_secret = sent.mask(text) != text or any(secret and secret in text for secret in sent.secrets)
    if not is_secret and is_harmless_reply(name, value):
        return quoted(value) if isinstance(value, str) else json.dumps(value)
    if isinstance(value, str) and is_explanation(name):
        return quoted(mask_explanation(sent.mask(value), sent.secrets))
    return _masked(value)


def _masked(value: object) -> str:
    return f"{MASK} ({len(value)} characters)" if isinstance(value, str) else f"{MASK} (a number)"


def _text(text: str, sent: _Sent) -> str:
    if not is_html_text(text):
        return _masked(text)
    title = _TITLE.search(text[:_HEAD_CHARACTERS])
    titled = f", titled {quoted(mask_explanation(sent.mask(title[1]), sent.secrets))}" if title else ""
    return f"an HTML page of {len(text)} characters{titled}"
