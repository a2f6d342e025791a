"""Find the token, its lifetime and the signal of success in the reply of a token endpoint (pure).

Each candidate has a reason and a confidence. If several are equally good, the user decides.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from proxy.credentials.sources.reply import COOKIE, Reply, cookies_of, embedded, parse_body
from proxy.recipe.expiries import Candidate, find_expiries, find_refresh_hint, path_leaves
from proxy.secret_detection import RANDOM_LENGTH_MIN, is_jwt, is_random, words_of
from proxy.wire.success import is_success

SURE: Final = 60
"""At this confidence or above, the user need not confirm a candidate."""
MARGIN: Final = 12
_TOKEN_LENGTH_MIN: Final = 6
_RANKS: Final = {
    100: "accesstoken",
    96: "tenantaccesstoken",
    95: "clienttoken",
    94: "appaccesstoken useraccesstoken",
    90: "token",
    86: "authtoken bearertoken jwttoken",
    84: "sessiontoken apitoken jwt tokenvalue",
    80: "bearer",
    75: "authorization",
    70: "idtoken",
    66: "ticket",
    60: "accesskey",
    55: "data result",
    50: "value",
    45: "sessionid key",
}
_TOKEN_NAMES: Final = {name: rank for rank, names in _RANKS.items() for name in names.split()}
_NO_TOKEN: Final = re.compile(
    r"refresh|type|csrf|xsrf|accessor|expire|scope|tokenid|nonce|state|uri|url|name|email"
)
_NOT_SECRET: Final = frozenset(
    {"id", "type", "name", "method", "mode", "version", "scheme", "url", "uri", "format", "endpoint"}
    | {"algorithm", "alg", "scope", "audience", "grant", "user", "username", "tenant"}
)
_REQUEST_WORDS: Final = frozenset({"request", "trace"})
_TOKEN_HEADERS: Final = {"x-subject-token": 97, "x-auth-token": 92, "access-token": 90, "x-access-token": 90}
_AMBIGUOUS_CODE: Final = "1000"
"""Some vendors write it for success and others for an error, whose reply contains no token."""
_CODE_NAMES: Final = frozenset(
    {"code", "errcode", "errno", "errorcode", "ret", "retcode", "returncode", "resultcode", "statuscode"}
    | {"rspcode", "respcode", "status", "state", "err"}
)
_FLAG_NAMES: Final = frozenset({"success", "issuccess", "ok", "succeeded"})


@dataclass(frozen=True, repr=False)
class Reading:
    """The candidates in a reply, the best of each kind first. Has no repr, because it contains the token."""

    tokens: tuple[Candidate, ...]
    expiries: tuple[Candidate, ...]
    success: Candidate | None = None
    refresh_in: Candidate | None = None

    @property
    def refused(self) -> bool:
        """Whether the reply signals a failure."""
        return self.success is not None and self.success.confidence < SURE

    @property
    def unsure_token(self) -> bool:
        """Whether the user should choose the token."""
        return bool(self.tokens) and _is_unsure(self.tokens)

    @property
    def unsure_expiry(self) -> bool:
        """Whether the user should choose the lifetime, or check its unit."""
        return bool(self.expiries) and _is_unsure(self.expiries)


def _is_unsure(candidates: tuple[Candidate, ...]) -> bool:
    best, *others = candidates
    return best.confidence < SURE or any(
        best.confidence - other.confidence < MARGIN and not best.agrees_with(other) for other in others
    )


def parse_reply(text: str, received: float) -> Reply:
    """Parse a saved reply, with or without the status line and headers that `curl -i` prints.

    Args:
        text: The saved text.
        received: When it was received, in seconds since the epoch, if there is no Date header.
    """
    headers: dict[str, str] = {}
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    while re.match(r"HTTP/[0-9.]+ \d{3}", text):  # several if there are proxies or interim responses
        head, _, text = text.partition("\n\n")
        pairs = [line.partition(":") for line in head.split("\n")[1:]]
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        headers |= cookies_of(value for name, _, value in pairs if name.strip().lower() == "set-cookie")
    return Reply(parse_body(text.encode()), headers, received, text)


def read_reply(reply: Reply) -> Reading:
    """Find the token, the lifetime and the signal of success."""
    tokens = sorted(_tokens(reply), key=lambda candidate: -candidate.confidence)
    if not tokens:
        return Reading((), (), _success(reply.body))
    return reading_for(reply, tuple(tokens))


def reading_for(reply: Reply, tokens: tuple[Candidate, ...]) -> Reading:
    """Return the reading for a token, the first of these. Its lifetime may be in the token itself."""
    expiries = find_expiries(reply, tokens[0])
    return Reading(tokens, expiries, _success(reply.body), find_refresh_hint(reply))


def _tokens(reply: Reply) -> Iterator[Candidate]:
    for path, name, value in path_leaves(reply.body):
        found = _token_at(path, name, value)
        if found is not None:
            yield found
    yield from _header_tokens(reply)
    yield from _cookie_tokens(reply)
    text = reply.text.strip()
    if (
        reply.body is None
        and len(text) >= _TOKEN_LENGTH_MIN
        and re.fullmatch(r"[!-~]+", text)
        and text[0] != "<"
    ):
        look, why = _rate_appearance(text)
        yield Candidate("text", "", f"the whole reply is one word that {why}", 65 + look, value=text)


def _token_at(path: str, name: str, value: object) -> Candidate | None:
    if not isinstance(value, str) or not re.fullmatch(r"(?i:Bearer )?[!-~]+", value):
        return None
    words = words_of(name)
    whole = "".join(words)
    look, why = _rate_appearance(value.rpartition(" ")[2])
    score = _TOKEN_NAMES.get(whole, 0)
    if not score and words[-1:] == ["token"]:
        score = 72
    if _NO_TOKEN.search(whole):
        return None
    if not score:
        if look <= 0 or _NOT_SECRET.intersection(words[-1:]) or _REQUEST_WORDS.intersection(words):
            return None
        return Candidate(
            "path", path, f"the value {why}, but its name does not suggest a token", 30 + look, value=value
        )
    return Candidate("path", path, f'it is named "{name}" and {why}', score + look, value=value)


def _header_tokens(reply: Reply) -> Iterator[Candidate]:
    for name, value in reply.headers.items():
        words = [] if name.startswith(COOKIE) else words_of(name)
        score = _TOKEN_HEADERS.get(name, 75 if words[-1:] == ["token"] else 0)
        if score and not _NO_TOKEN.search("".join(words)) and re.fullmatch(r"[!-~]+", value):
            look, why = _rate_appearance(value)
            yield Candidate(
                "header", name, f'the reply has a header "{name}" that {why}', score + look, value=value
            )


def _cookie_tokens(reply: Reply) -> Iterator[Candidate]:
    for path, value in reply.headers.items():
        name = path.removeprefix(COOKIE)
        if name == path or ";" in name or not re.fullmatch(r"[!-~]{6,}", value):
            continue
        whole = "".join(words_of(name))
        look, why = _rate_appearance(value)
        named = _TOKEN_NAMES.get(whole, 62 if re.search(r"token|session|sid|ticket|auth", whole) else 0)
        if _NO_TOKEN.search(whole) or (not named and look <= 0):
            continue
        why = f'the reply sets a cookie "{name}" that {why}'
        yield Candidate("path", path, why, (named or 30) + look, value=value)


def _rate_appearance(value: str) -> tuple[int, str]:
    if is_jwt(value):
        return 12, "is a JWT"
    if is_random(value):
        return 8, f"looks random ({len(value)} characters)"
    if len(value) >= RANDOM_LENGTH_MIN:
        return 0, f"is long ({len(value)} characters)"
    return -15, f"is short ({len(value)} characters)"


def _success(body: object) -> Candidate | None:
    """Find a value at the top level of the reply that signals success."""
    body = embedded(body) if isinstance(body, str) else body
    if not isinstance(body, dict):
        return None
    if len(body) == 1 and isinstance(inside := next(iter(body.values())), dict):  # like an XML root
        root = next(iter(body))
        found = _success(inside) if root and "." not in root else None
        return None if found is None else replace(found, path=f"{root}.{found.path}")
    return _sign_in(body)


def _sign_in(body: dict[str, object]) -> Candidate | None:
    found = []
    for name, value in body.items():
        whole = "".join(words_of(name))
        if "." in name or not name or isinstance(value, dict | list | float) or value is None:
            continue
        if whole in _FLAG_NAMES and value in (True, "true"):
            found.append(
                Candidate("path", name, f'"{name}" is true in a reply that contains a token', 90, value=value)
            )
        elif whole in _CODE_NAMES and not isinstance(value, bool):
            good = is_success(str(value)) or str(value) == _AMBIGUOUS_CODE
            why = f'"{name}" is {json.dumps(value)} in a reply that contains a token'
            if good or (isinstance(value, int) and math.fabs(value) < 100_000):
                found.append(Candidate("path", name, why, 85 if good else 40, value=value))
    return max(found, key=lambda candidate: candidate.confidence, default=None)
