"""Find in a reply how long its token lives: by names, and by what the values mean at the reply's own time.

A number's unit is what makes it a life that a token can have. Between seconds and milliseconds roundness
decides: 300000 is five minutes rather than 3.47 days.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from proxy.credentials.sources.reply import COOKIE, HEADER, Reply, has_no_zone, read_lifetime
from proxy.recipe.finding import Finding, path_leaves
from proxy.secret_detection import is_jwt, words_of

DAY: Final = 86400
_LONGEST: Final = 400 * DAY
_SIZES: Final = {"seconds": 1, "milliseconds": 1000}
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
    82: "validity lifetime",
    74: "effectivetime maxage deadline",
    66: "duration",
    55: "timeout",
}
_NAMES: Final = {name: rank for rank, names in _RANKS.items() for name in names.split()}
_TELLING: Final = re.compile(r"expir|ttl|validity|validto|validuntil|lifetime|notafter")
_NOT_OURS: Final = re.compile(r"^ext|issued|notbefore|created|password|grace")
_OF_ANOTHER: Final = re.compile(r"refresh|idtoken")
_IN_MILLISECONDS: Final = re.compile(r"milli|ms$")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d.*\d\d:\d\d")
_OF_HTTP: Final = frozenset(
    {"age", "cache-control", "date", "expires", "keep-alive", "retry-after", "strict-transport-security"}
    | {"access-control-max-age", "last-modified", "content-security-policy", "x-ratelimit-reset"}
)
"""Headers that speak of the reply, not of the token."""


def find_expiries(reply: Reply, token: Finding) -> tuple[Finding, ...]:
    """The places that tell the token's life, best first."""
    found = [*_named(reply), *_beside(reply, token)]
    own = _own_word(reply, token)
    if own is not None:
        found = [*(_compared(finding, own) for finding in found), own]
    return tuple(sorted(found, key=lambda finding: -finding.confidence))


def find_refresh_hint(reply: Reply) -> Finding | None:
    """`refresh_in`: after how many seconds the issuer wants to be asked again."""
    for path, name, value in path_leaves(reply.body):
        if "".join(words_of(name)) == "refreshin" and _life(reply, path, "seconds") is not None:
            return Finding("path", path, f'"{name}" is the issuer\'s own wish', 90, "seconds", value=value)
    return None


def _named(reply: Reply) -> Iterator[Finding]:
    for path, name, value in path_leaves(reply.body):
        whole = "".join(words_of(name))
        score = _NAMES.get(whole, 70 if _TELLING.search(whole) else 0)
        if not score or _NOT_OURS.search(whole) or _OF_ANOTHER.search("".join(words_of(path))):
            continue
        if _is_number(value) and not has_no_zone(value):
            yield from _number(reply, path, name, value, score)
        elif isinstance(value, str) and (_INSTANT.match(value) or has_no_zone(value)):
            yield from _iso8601(reply, path, name, value, score)


def _beside(reply: Reply, token: Finding) -> Iterator[Finding]:
    """Lives in headers, and that of the cookie which is the token."""
    for name, value in reply.headers.items():
        if name.startswith(COOKIE) or name in _OF_HTTP:
            continue
        whole = "".join(words_of(name)).removeprefix("x").replace("token", "")
        score = _NAMES.get(whole, 70 if _TELLING.search(whole) else 0)
        if score and not _OF_ANOTHER.search(whole):
            yield from _valued(reply, f"{HEADER}{name}", name, value, score)
    for attribute, score in ((";max-age", 95), (";expires", 90)):
        path = token.path + attribute
        if token.path.startswith(COOKIE) and path in reply.headers:
            yield from _valued(reply, path, attribute[1:], reply.headers[path], score)


def _valued(reply: Reply, path: str, name: str, value: str, score: int) -> Iterator[Finding]:
    if _is_number(value):
        yield from _number(reply, path, name, value, score)
    elif _life(reply, path, "iso8601") is not None:
        yield from _iso8601(reply, path, name, value, score)


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _NUMBER_MAX


def _life(reply: Reply, path: str, unit: str) -> float | None:
    """The life that the service would read there."""
    return read_lifetime([(path, unit)], reply, "", math.inf)


def _number(reply: Reply, path: str, name: str, value: Any, score: int) -> Iterator[Finding]:
    """What a number means: one thing, or where its unit is in doubt the likelier one first."""
    for unit, what, size in (("epoch", "seconds", 1), ("epoch_ms", "milliseconds", 1000)):
        instant = float(value) / size - reply.server_time
        if 0 < instant <= _LONGEST:
            why = f'"{name}" as {what} since 1970 is {span(instant)} after the reply'
            yield Finding("path", path, why, score, unit, instant, value)
            return
        if -_PAST < instant <= 0:
            why = f'"{name}" looks like {what} since 1970, though that is before the reply'
            yield Finding("path", path, why, 45, unit, value=value)
            return
    units = _units_of(float(value), name)
    for unit in units:
        life = float(value) / _SIZES[unit]
        if 0 < life <= _LONGEST:
            sure = score if len(units) == 1 else min(score, 58 if unit == units[0] else 50)
            yield Finding("path", path, f'"{name}" is {value} {unit}, {span(life)}', sure, unit, life, value)


def _units_of(number: float, name: str) -> tuple[str, ...]:
    """The units that a count may have, the likeliest first."""
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


def _iso8601(reply: Reply, path: str, name: str, value: str, score: int) -> Iterator[Finding]:
    life = _life(reply, path, "iso8601")
    if life is None:
        why = f'"{name}" is a date, though none after the reply'
        yield Finding("path", path, why, 45, "iso8601", value=value)
    elif life <= _LONGEST and not has_no_zone(value):
        why = f'"{name}" is {span(life)} after the reply'
        yield Finding("path", path, why, score, "iso8601", life, value)
    elif life <= _LONGEST:
        why = f'"{name}" names no time zone; read as UTC it is {span(life)} after the reply'
        yield Finding("path", path, why, min(score, 50), "iso8601", life, local=True, value=value)


def with_offset(reply: Reply, finding: Finding, offset: str) -> Finding:
    """A local time by the offset of the issuer's clock."""
    life = _life(reply, finding.path, f"iso8601{offset}")
    why = f"a local time of a clock at {offset}" + (f", {span(life)} after the reply" if life else "")
    return replace(finding, why=why, confidence=90, unit=f"iso8601{offset}", lifetime=life, local=False)


def _own_word(reply: Reply, token: Finding) -> Finding | None:
    """A JWT's own `exp` (RFC 7519 4.1.4): certain, but only a token in the JSON can be pointed to."""
    text = str(token.value).rpartition(" ")[2]
    if not is_jwt(text):
        return None
    life = read_lifetime([("", "jwt")], reply, text, math.inf)
    if life is None:
        return None
    return Finding(token.kind, token.path, f"the JWT itself says {span(life)}", 85, "jwt", life, token.value)


def _compared(finding: Finding, own: Finding) -> Finding:
    """A named life in the light of what the token says of itself."""
    if finding.agrees_with(own):
        why, confidence = f"{finding.why}, and the JWT's own exp agrees", finding.confidence + 10
        confidence = max(confidence, 90)
    else:
        why, confidence = f"{finding.why}, but {own.why}", min(finding.confidence, 50)
    return Finding("path", finding.path, why, confidence, finding.unit, finding.lifetime, finding.value)


def span(seconds: float) -> str:
    """A length of time for people: `45 s`, `5 min`, `2 h`, `30 days`; two parts at most."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    for size, name in ((DAY, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.0f} s"
