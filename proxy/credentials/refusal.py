"""By which signs an upstream's answer is taken for a refusal of our token (pure)."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from proxy.credentials.sources.expiry import find_path
from proxy.settings import Invalidation

BODY_BYTES_MAX: Final = 64 * 1024
"""An error that is longer is none: as much of a body is looked into."""
_TYPE: Final = b"content-type"
_JSON: Final = b"application/json"

Headers = Iterable[tuple[bytes, bytes]]


class RefusalRules:
    """The `invalidate_on` rules of a credential.

    Args:
        rules: Any of them that fits makes an answer a refusal.
    """

    def __init__(self, rules: Sequence[Invalidation]) -> None:
        self._of_heads = [rule for rule in rules if rule.path is None]
        self._of_bodies = [rule for rule in rules if rule.path is not None]
        self._statuses = frozenset(rule.status for rule in rules)

    def fit_head(self, status: int, headers: Headers) -> bool:
        """Whether status and headers alone say so."""
        return status in self._statuses and any(_fits(rule, status, headers) for rule in self._of_heads)

    def ask_for_body(self, status: int, headers: Headers) -> bool:
        """Whether the beginning of the body has to be seen: JSON, and a rule for that status."""
        return (
            status in self._statuses
            and any(_fits(rule, status, headers) for rule in self._of_bodies)
            and _is_json(headers)
        )

    def fit_body(self, status: int, headers: Headers, body: bytes) -> bool:
        """Whether a body says so."""
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            return False
        return any(
            _fits(rule, status, headers) and _is_among(find_path(parsed, rule.path or ""), rule.values)
            for rule in self._of_bodies
        )


def _is_json(headers: Headers) -> bool:
    """One JSON value; streams of many (NDJSON and the like) must not be held back."""
    types = [value.partition(b";")[0].strip().lower() for name, value in headers if name.lower() == _TYPE]
    return any(kind == _JSON or (kind.endswith(b"+json") and b"stream" not in kind) for kind in types)


def _fits(rule: Invalidation, status: int, headers: Headers) -> bool:
    if rule.status != status:
        return False
    challenge = rule.www_authenticate
    return challenge is None or any(
        name.lower() == b"www-authenticate" and challenge.lower().encode() in value.lower()
        for name, value in headers
    )


def _is_among(found: Any, values: Sequence[object]) -> bool:
    """Equal, and of the same kind: 1 is not true, and 110 is not "110"."""
    return any(type(found) is type(value) and found == value for value in values)
