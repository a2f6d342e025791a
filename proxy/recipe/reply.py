"""Find in a token endpoint's reply where the token stands, how long it lives, and what means success (pure).

What is found is a belief, and says why; equally good ones are left for somebody to decide.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.credentials.sources.reply import COOKIE, Reply, cookies_of, embedded, parse_body
from proxy.recipe.expiry_place import find_expiries, find_refresh_hint
from proxy.recipe.finding import Finding, path_leaves
from proxy.secret_detection import RANDOM_LENGTH_MIN, is_jwt, is_random, words_of

SURE: Final = 60
"""From this confidence on a finding need not be asked about."""
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
_PLAIN_LAST: Final = frozenset(
    {"id", "type", "name", "method", "mode", "version", "scheme", "url", "uri", "format", "endpoint"}
    | {"algorithm", "alg", "scope", "audience", "grant", "user", "username", "tenant"}
)
_OF_ONE_REQUEST: Final = frozenset({"request", "trace"})
_TOKEN_HEADERS: Final = {"x-subject-token": 97, "x-auth-token": 92, "access-token": 90, "x-access-token": 90}
_GOOD_WORDS: Final = frozenset({"success", "ok", "succeeded", "successful"})
_GOOD_CODES: Final = frozenset({"0", "00", "000", "0000", "00000", "000000", "200", "20000", "1000"})
_CODE_NAMES: Final = frozenset(
    {"code", "errcode", "errno", "errorcode", "ret", "retcode", "returncode", "resultcode", "statuscode"}
    | {"rspcode", "respcode", "status", "state", "err"}
)
_FLAG_NAMES: Final = frozenset({"success", "issuccess", "ok", "succeeded"})


@dataclass(frozen=True, repr=False)
class Reading:
    """What is believed of a reply, the best of each first. Its repr shows nothing: it knows the token."""

    tokens: tuple[Finding, ...]
    expiries: tuple[Finding, ...]
    success: Finding | None = None
    refresh_in: Finding | None = None

    @property
    def refused(self) -> bool:
        """Whether the reply rather says that nothing is given."""
        return self.success is not None and self.success.confidence < SURE

    @property
    def unsure_token(self) -> bool:
        """Whether somebody should choose."""
        return bool(self.tokens) and _is_unsure(self.tokens)

    @property
    def unsure_expiry(self) -> bool:
        """Whether somebody should choose, or look at its unit."""
        return bool(self.expiries) and _is_unsure(self.expiries)


def _is_unsure(findings: tuple[Finding, ...]) -> bool:
    best, *others = findings
    return best.confidence < SURE or any(
        best.confidence - other.confidence < MARGIN and not best.agrees_with(other) for other in others
    )


def parse_reply(text: str, received: float) -> Reply:
    """A saved reply: its JSON or text, with or without the status line and headers that `curl -i` prints.

    Args:
        text: What was saved.
        received: Seconds since the epoch when it came, for want of a Date header.
    """
    headers: dict[str, str] = {}
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    while re.match(r"HTTP/[0-9.]+ \d{3}", text):  # several, where a proxy or an interim answer spoke first
        head, _, text = text.partition("\n\n")
        pairs = [line.partition(":") for line in head.split("\n")[1:]]
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        headers |= cookies_of(value for name, _, value in pairs if name.strip().lower() == "set-cookie")
    return Reply(parse_body(text.encode()), headers, received, text)


def read_reply(reply: Reply) -> Reading:
    """Find what a recipe needs."""
    tokens = sorted(_tokens(reply), key=lambda finding: -finding.confidence)
    if not tokens:
        return Reading((), (), _success(reply.body))
    return reading_for(reply, tuple(tokens))


def reading_for(reply: Reply, tokens: tuple[Finding, ...]) -> Reading:
    """The reading in which the first of these is the token: some lives stand in the token itself."""
    expiries = find_expiries(reply, tokens[0])
    return Reading(tokens, expiries, _success(reply.body), find_refresh_hint(reply))


def _tokens(reply: Reply) -> Iterator[Finding]:
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
        look, why = _look(text)
        yield Finding("text", "", f"the whole reply is one word {why}", 65 + look, value=text)


def _token_at(path: str, name: str, value: Any) -> Finding | None:
    if not isinstance(value, str) or not re.fullmatch(r"(?i:Bearer )?[!-~]+", value):
        return None
    words = words_of(name)
    whole = "".join(words)
    look, why = _look(value.rpartition(" ")[2])
    score = _TOKEN_NAMES.get(whole, 0)
    if not score and words[-1:] == ["token"]:
        score = 72
    if _NO_TOKEN.search(whole):
        return None
    if not score:
        if look <= 0 or _PLAIN_LAST.intersection(words[-1:]) or _OF_ONE_REQUEST.intersection(words):
            return None
        return Finding(
            "path", path, f"the value {why}, though its name does not say it", 30 + look, value=value
        )
    return Finding("path", path, f'it is named "{name}" and {why}', score + look, value=value)


def _header_tokens(reply: Reply) -> Iterator[Finding]:
    for name, value in reply.headers.items():
        words = [] if name.startswith(COOKIE) else words_of(name)
        score = _TOKEN_HEADERS.get(name, 75 if words[-1:] == ["token"] else 0)
        if score and not _NO_TOKEN.search("".join(words)) and re.fullmatch(r"[!-~]+", value):
            look, why = _look(value)
            yield Finding(
                "header", name, f'the reply has a header "{name}" that {why}', score + look, value=value
            )


def _cookie_tokens(reply: Reply) -> Iterator[Finding]:
    for path, value in reply.headers.items():
        name = path.removeprefix(COOKIE)
        if name == path or ";" in name or not re.fullmatch(r"[!-~]{6,}", value):
            continue
        whole = "".join(words_of(name))
        look, why = _look(value)
        named = _TOKEN_NAMES.get(whole, 62 if re.search(r"token|session|sid|ticket|auth", whole) else 0)
        if _NO_TOKEN.search(whole) or (not named and look <= 0):
            continue
        why = f'the reply sets a cookie "{name}" that {why}'
        yield Finding("path", path, why, (named or 30) + look, value=value)


def _look(value: str) -> tuple[int, str]:
    if is_jwt(value):
        return 12, "is a JWT"
    if is_random(value):
        return 8, f"looks random ({len(value)} characters)"
    if len(value) >= RANDOM_LENGTH_MIN:
        return 0, f"is long ({len(value)} characters)"
    return -15, f"is short ({len(value)} characters)"


def _success(body: Any) -> Finding | None:
    """A sign of success beside the token: only what is at the top speaks of the whole reply."""
    body = embedded(body) if isinstance(body, str) else body
    if not isinstance(body, dict):
        return None
    if len(body) == 1 and isinstance(inside := next(iter(body.values())), dict):  # as the root of XML is
        root = next(iter(body))
        found = _success(inside) if root and "." not in root else None
        return None if found is None else replace(found, path=f"{root}.{found.path}")
    return _sign_in(body)


def _sign_in(body: dict[str, Any]) -> Finding | None:
    found = []
    for name, value in body.items():
        whole = "".join(words_of(name))
        if "." in name or not name or isinstance(value, dict | list | float) or value is None:
            continue
        if whole in _FLAG_NAMES and value in (True, "true"):
            found.append(
                Finding("path", name, f'"{name}" is true in a reply that brings a token', 90, value=value)
            )
        elif whole in _CODE_NAMES and not isinstance(value, bool):
            good = str(value) in _GOOD_CODES or str(value).lower() in _GOOD_WORDS
            why = f'"{name}" is {json.dumps(value)} in a reply that brings a token'
            if good or (isinstance(value, int) and math.fabs(value) < 100_000):
                found.append(Finding("path", name, why, 85 if good else 40, value=value))
    return max(found, key=lambda finding: finding.confidence, default=None)
