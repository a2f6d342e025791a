"""Find the lifetime of the token in a reply, by the names and values of its fields (pure).

The unit of a number is the one in which it is a plausible lifetime. Between seconds and milliseconds, round
values decide: 300000 is five minutes rather than 3.47 days.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeGuard

from proxy.credentials.sources.reply import COOKIE, HEADER, Reply, has_no_zone, read_lifetime
from proxy.recipe.outline import leaves
from proxy.secret_detection import is_jwt, words_of

_SAME: Final = 0.1
"""The relative difference up to which two lifetimes are considered equal."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place in a reply, what it means, and why."""

    kind: Literal["path", "header", "text", "fixed"]
    """`fixed`: the value is known, but its unit is none of the settings."""
    path: str
    """The dotted path in the JSON, or the name of the header."""
    why: str
    """The reason, without values that may be secret."""
    confidence: int
    """About 100 if both name and value fit; below 60 the user should decide."""
    unit: str = ""
    """The unit of a lifetime, as in the key `as` of the settings."""
    lifetime: float | None = None
    """The resulting lifetime in seconds."""
    value: object = field(default=None, repr=False)
    local: bool = False
    """Whether it is a local time without a time zone."""

    def agrees_with(self, other: "Candidate") -> bool:
        """Whether both candidates lead to the same result."""
        if self.lifetime is not None and other.lifetime is not None:
            return abs(self.lifetime - other.lifetime) <= _SAME * max(self.lifetime, other.lifetime)
        return bool(self.value == other.value)


def path_leaves(body: object) -> Iterator[tuple[str, str, object]]:
    """Yield (dotted path, name, value) of each value; items of a list have the name of the list."""
    for path, value in leaves(body):
        if not path or any(not step or "." in step for step in path):
            continue
        name = next((step for step in reversed(path) if not step.isdigit()), "")
        yield ".".join(path), name, value


DAY: Final = 86400
_LONGEST: Final = 400 * DAY
_SIZES: Final = {"seconds": 1, "milliseconds": 1000}
_LARGE_UNITS: Final = {"minute": 60, "hour": 3600, "day": DAY}
"""Units in the name of a field, in seconds. The settings read none of them."""
_NUMBER_MAX: Final = 10**15
_PAST: Final = 5 * 365 * DAY
_ROUND_DAYS_MAX: Final = 100 * DAY
_RANKS: Final = {
    100: "expiresin",
    96: "expirein leaseduration",
    94: "expiresat expireat",
    92: "expires expire expiretime expireson expiration expirationtime expiry expiretimestamp",
    90: "expirestime expirytime tokenexpire tokenexpires",
    88: "exp ttl expiredtime",
    84: "validto validuntil notafter",
    82: "validity lifetime validseconds validtime validperiod",
    74: "effectivetime maxage deadline",
    66: "duration",
    55: "timeout",
}
_NAMES: Final = {name: rank for rank, names in _RANKS.items() for name in names.split()}
_EXPIRY_WORDS: Final = re.compile(r"expir|ttl|validity|validto|validuntil|lifetime|notafter")
_OTHER_TIMES: Final = re.compile(r"^ext|issued|notbefore|created|password|grace")
_OTHER_TOKENS: Final = re.compile(r"refresh|idtoken")
_IN_MILLISECONDS: Final = re.compile(r"milli|ms$")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d.*\d\d:\d\d")
_HTTP_HEADERS: Final = frozenset(
    {"age", "cache-control", "date", "expires", "keep-alive", "retry-after", "strict-transport-security"}
    | {"access-control-max-age", "last-modified", "content-security-policy", "x-ratelimit-reset"}
)
"""Headers about the reply, not the token."""


def find_expiries(reply: Reply, token: Candidate) -> tuple[Candidate, ...]:
    """Find the places that hold the lifetime of the token, best first."""
    found = [*_named(reply), *_outside_body(reply, token)]
    jwt = _jwt_expiry(reply, token)
    if jwt is not None:
        # A fixed lifetime is never better than the exp claim, which each token has.
        found = [*(each if each.kind == "fixed" else _compared(each, jwt) for each in found), jwt]
    return tuple(sorted(found, key=lambda candidate: -candidate.confidence))


def find_refresh_hint(reply: Reply) -> Candidate | None:
    """Find `refresh_in`, the number of seconds after which the issuer wants to be asked again."""
    for path, name, value in path_leaves(reply.body):
        if "".join(words_of(name)) == "refreshin" and _life(reply, path, "seconds") is not None:
            return Candidate(
                "path",
                path,
                f'"{name}" is the refresh time that the issuer asks for',
                90,
                "seconds",
                value=value,
            )
    return None


def _named(reply: Reply) -> Iterator[Candidate]:
    for path, name, value in path_leaves(reply.body):
        whole = "".join(words_of(name))
        score = _NAMES.get(whole, 70 if _EXPIRY_WORDS.search(whole) else 0)
        if not score or _OTHER_TIMES.search(whole) or _OTHER_TOKENS.search("".join(words_of(path))):
            continue
        if _is_number(value) and not has_no_zone(value):
            yield from _number(reply, path, name, value, score)
        elif isinstance(value, str) and (_INSTANT.match(value) or has_no_zone(value)):
            yield from _iso8601(reply, path, name, value, score)


def _outside_body(reply: Reply, token: Candidate) -> Iterator[Candidate]:
    """Find lifetimes in headers, and that of the token's cookie."""
    for name, value in reply.headers.items():
        if name.startswith(COOKIE) or name in _HTTP_HEADERS:
            continue
        whole = "".join(words_of(name)).removeprefix("x").replace("token", "")
        score = _NAMES.get(whole, 70 if _EXPIRY_WORDS.search(whole) else 0)
        if score and not _OTHER_TOKENS.search(whole):
            yield from _valued(reply, f"{HEADER}{name}", name, value, score)
    for attribute, score in ((";max-age", 95), (";expires", 90)):
        path = token.path + attribute
        if token.path.startswith(COOKIE) and path in reply.headers:
            yield from _valued(reply, path, attribute[1:], reply.headers[path], score)


def _valued(reply: Reply, path: str, name: str, value: str, score: int) -> Iterator[Candidate]:
    if _is_number(value):
        yield from _number(reply, path, name, value, score)
    elif _life(reply, path, "iso8601") is not None:
        yield from _iso8601(reply, path, name, value, score)


def _is_number(value: object) -> TypeGuard[str | float]:
    if isinstance(value, str):
        return re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _NUMBER_MAX


def _life(reply: Reply, path: str, unit: str) -> float | None:
    """Return the lifetime that the service would read there."""
    return read_lifetime([(path, unit)], reply, "", math.inf)


def _number(reply: Reply, path: str, name: str, value: str | float, score: int) -> Iterator[Candidate]:
    """Yield the meanings of a number, the most likely unit first."""
    for unit, what, size in (("epoch", "seconds", 1), ("epoch_ms", "milliseconds", 1000)):
        instant = float(value) / size - reply.server_time
        if 0 < instant <= _LONGEST:
            why = f'"{name}" as {what} since 1970 is {span(instant)} after the reply'
            yield Candidate("path", path, why, score, unit, instant, value)
            return
        if -_PAST < instant <= 0:
            why = f'"{name}" looks like {what} since 1970, but that is before the reply'
            yield Candidate("path", path, why, 45, unit, value=value)
            return
    size = next((size for word, size in _LARGE_UNITS.items() if word in "".join(words_of(name))), 0)
    if size:
        life = float(value) * size
        if 0 < life <= _LONGEST:
            why = f'the value of "{name}" means {span(life)}'
            yield Candidate("fixed", path, why, 55, lifetime=life, value=value)
        return
    units = _units_of(float(value), name)
    for unit in units:
        life = float(value) / _SIZES[unit]
        if 0 < life <= _LONGEST:
            confidence = score if len(units) == 1 else min(score, 58 if unit == units[0] else 50)
            yield Candidate(
                "path", path, f'"{name}" is {value} {unit}, {span(life)}', confidence, unit, life, value
            )


def _units_of(number: float, name: str) -> tuple[str, ...]:
    """Return the possible units of a duration, the most likely one first."""
    if _IN_MILLISECONDS.search("".join(words_of(name))):
        return ("milliseconds",)
    if "second" in name.lower():
        return ("seconds",)
    if number > _LONGEST:
        return ("milliseconds",)
    whole_days = number % DAY == 0 and number <= _ROUND_DAYS_MAX
    if number < 60_000 or number % 60_000 or whole_days:
        return ("seconds",)
    return ("milliseconds", "seconds") if number <= _ROUND_DAYS_MAX else ("milliseconds",)


def _iso8601(reply: Reply, path: str, name: str, value: str, score: int) -> Iterator[Candidate]:
    life = _life(reply, path, "iso8601")
    if life is None:
        why = f'"{name}" is a date, but not after the reply'
        yield Candidate("path", path, why, 45, "iso8601", value=value)
    elif life <= _LONGEST and not has_no_zone(value):
        why = f'"{name}" is {span(life)} after the reply'
        yield Candidate("path", path, why, score, "iso8601", life, value)
    elif life <= _LONGEST:
        why = f'"{name}" has no time zone; read as UTC it is {span(life)} after the reply'
        yield Candidate("path", path, why, min(score, 50), "iso8601", life, local=True, value=value)


def with_offset(reply: Reply, candidate: Candidate, offset: str) -> Candidate:
    """Apply a UTC offset to a local time."""
    life = _life(reply, candidate.path, f"iso8601{offset}")
    why = f"a local time at UTC offset {offset}" + (f", {span(life)} after the reply" if life else "")
    return replace(candidate, why=why, confidence=90, unit=f"iso8601{offset}", lifetime=life, local=False)


def _jwt_expiry(reply: Reply, token: Candidate) -> Candidate | None:
    """Read the `exp` of a JWT (RFC 7519 4.1.4). The settings can refer to it only if the token is in JSON."""
    text = str(token.value).rpartition(" ")[2]
    if not is_jwt(text):
        return None
    life = read_lifetime([("", "jwt")], reply, text, math.inf)
    if life is None:
        return None
    return Candidate(
        token.kind, token.path, f"the exp claim of the JWT says {span(life)}", 85, "jwt", life, token.value
    )


def _compared(candidate: Candidate, jwt: Candidate) -> Candidate:
    """Adjust the confidence of a candidate by the `exp` of the JWT."""
    if candidate.agrees_with(jwt):
        why, confidence = f"{candidate.why}, and the exp claim of the JWT agrees", candidate.confidence + 10
        confidence = max(confidence, 90)
    else:
        why, confidence = f"{candidate.why}, but {jwt.why}", min(candidate.confidence, 50)
    return Candidate(
        "path", candidate.path, why, confidence, candidate.unit, candidate.lifetime, candidate.value
    )


def span(seconds: float) -> str:
    """Write a duration: `45 s`, `5 min`, `2 h`, `30 days`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    for size, name in ((DAY, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.0f} s"
