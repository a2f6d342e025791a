"""What a field's name tells, and what a value looks like (pure)."""

import math
import re
from collections import Counter
from itertools import pairwise
from typing import Final

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DENSE: Final = re.compile(r"[A-Za-z0-9+/=_.~-]+")
RANDOM_LENGTH_MIN: Final = 16
_BITS_MIN: Final = 3.0
_ALWAYS_SECRET: Final = re.compile(r"secret|passw|pwd|passphrase|passcode")
_SECRET: Final = re.compile(
    r"token|credential|assertion|authorization|cookie|signature|jwt|apikey|accesskey|privatekey|appkey|secretkey"
)
_SECRET_WORDS: Final = frozenset({"auth", "key", "sk", "pin", "ticket", "sign", "sig", "hmac", "otp", "code"})
_PLAIN_ENDINGS: Final = frozenset(
    {"type", "id", "name", "method", "methods", "mode", "version", "scheme", "url", "uri", "format", "ttl"}
    | {"length", "count", "expires", "endpoint", "algorithm", "alg", "scope", "audience", "grant"}
)
_PLAIN_LAST: Final = frozenset({"type", "name", "method", "version", "expires", "url", "uri"})
SIGNATURE_WORDS: Final = frozenset({"sign", "sig", "signature", "hmac", "digest", "mac"})


def words_of(name: str) -> list[str]:
    """`appSecret`, `app-secret` and `APP_SECRET` are all `["app", "secret"]`."""
    return [word.lower() for word in _WORD.findall(name)]


def names_a_secret(name: str) -> bool:
    """Whether a field of that name holds a secret: `password`, `X-Api-Key`; not `token_type` or `keyId`."""
    words = words_of(name)
    if not words:
        return False
    whole = "".join(words)
    if _ALWAYS_SECRET.search(whole):
        return words[-1] not in _PLAIN_LAST
    if words[-1] in _PLAIN_ENDINGS:
        return False
    return bool(_SECRET.search(whole)) or bool(_SECRET_WORDS.intersection(words))


def names_an_id(name: str) -> bool:
    """Whether a field says who or which, which is no secret however random it looks."""
    words = words_of(name)
    return bool(words) and (words[-1] in _PLAIN_ENDINGS or words[-1] in {"user", "username", "tenant"})


def is_jwt(text: str) -> bool:
    """Whether it has the form of a JSON Web Token (RFC 7519)."""
    return bool(_JWT.fullmatch(text))


def is_uuid(text: str) -> bool:
    """Whether it has the form of RFC 9562."""
    return bool(_UUID.fullmatch(text))


def is_random(text: str) -> bool:
    """Whether it looks drawn by a machine: long, dense, letters with digits, no word or date or address."""
    if len(text) < RANDOM_LENGTH_MIN or not _DENSE.fullmatch(text) or is_uuid(text):
        return False
    if is_jwt(text):
        return True
    return _mixes(text) and bits_per_character(text) >= _BITS_MIN


def _mixes(text: str) -> bool:
    letters, digits = sum(map(str.isalpha, text)), sum(map(str.isdigit, text))
    changes = sum(a.isdigit() != b.isdigit() or (a.islower() and b.isupper()) for a, b in pairwise(text))
    return letters >= 4 and (digits >= 2 or len(text) >= 24) and changes >= len(text) // 8


def bits_per_character(text: str) -> float:
    """Shannon's entropy of its characters."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)
