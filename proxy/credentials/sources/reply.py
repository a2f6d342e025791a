"""The reply of a token endpoint: its values by path, the token, and the token's lifetime (pure).

Vendors give lifetimes in seconds, milliseconds, epoch seconds or milliseconds, ISO 8601 or inside a JWT, as
numbers or strings. Points in time are compared with the Date header of the reply, so that this host's clock
does not matter.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, TypeGuard
from xml.etree import ElementTree as ET

from proxy.wire.http_date import read_http_date
from proxy.wire.repairs.shallow_json import has_too_many_values

XML_BYTES_MAX: Final = 128 * 1024
"""Twice the longest token: an element takes several times as long as the same bytes of JSON."""
XML_TAGS_MAX: Final = 4_000
"""A reply with more opening and closing tags is not parsed: each element takes microseconds."""
_DEPTH_MAX: Final = 50
_CHARSETS: Final = {
    "big5": "big5hkscs",
    "euc-kr": "cp949",
    "gb2312": "gb18030",
    "gb18030": "gb18030",
    "gbk": "gb18030",
    "iso-8859-1": "cp1252",
    "shift_jis": "cp932",
    "windows-1252": "cp1252",
}
"""The codec of each charset that vendors use besides UTF-8, as browsers choose it. Others may take long."""
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*\"?([a-z0-9_-]+)", re.IGNORECASE)
_DTD: Final = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_COOKIE: Final = re.compile(r"\s*([^=;\s]+)\s*=\s*(\"[^\"]*\"|[^;]*)")
_ATTRIBUTE: Final = re.compile(r";\s*(max-age|expires)\s*=\s*([^;]*)", re.IGNORECASE)


def codec_of(body: bytes, content_type: str) -> str | None:
    """Return the codec of a body by its Content-Type; None if it is UTF-8, or has an unknown charset."""
    named = _CHARSET.search(content_type)
    codec = None if named is None else _CHARSETS.get(named[1].lower())
    if codec is None:
        return None
    try:
        body.decode()
    except UnicodeDecodeError:
        return codec
    return None  # JSON is UTF-8 (RFC 8259 8.1), whatever the header says


def parse_body(body: bytes, codec: str | None = None) -> object:
    """Parse JSON, or else XML; None for anything else.

    JSON is in UTF-8, UTF-16 or UTF-32, or in the charset of the codec; XML names its own charset.

    An XML element becomes a table of its children by name, without namespaces. Several children of the same
    name become a list. Attributes begin with `@`. The root element is the only key of the result.
    """
    text = body if codec is None else body.decode(codec, "replace").encode()
    if has_too_many_values(text):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    is_text = body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"\0" not in body  # not UTF-16
    if not is_text or len(body) > XML_BYTES_MAX or body.count(b"<") > XML_TAGS_MAX or _DTD.search(body):
        return None
    try:
        root = ET.fromstring(body)  # noqa: S314 - nothing expands without a DTD
    except (ET.ParseError, ValueError, LookupError):
        return None
    name = _local(root.tag)
    return None if name.lower() == "html" else {name: _value(root, 0)}


def embedded(text: str) -> object:
    """Parse a string that contains a JSON object or array; return None for any other."""
    if text.lstrip()[:1] not in {"{", "["} or has_too_many_values(text.encode("utf-8", "replace")):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def cookies_of(set_cookies: Iterable[str]) -> dict[str, str]:
    """Return cookies as `cookie:NAME`, `cookie:NAME;max-age` and `cookie:NAME;expires` (RFC 6265)."""
    found: dict[str, str] = {}
    for line in set_cookies:
        cookie = _COOKIE.match(line)
        if cookie:
            found[f"cookie:{cookie[1]}"] = cookie[2].strip().strip('"')
            for attribute in _ATTRIBUTE.finditer(line, cookie.end()):
                found[f"cookie:{cookie[1]};{attribute[1].lower()}"] = attribute[2].strip()
    return found


def _value(element: ET.Element, depth: int) -> object:
    """Return the text of an element, or a table of its attributes and children."""
    if depth > _DEPTH_MAX:
        return None
    inside: dict[str, object] = {f"@{_local(name)}": value for name, value in element.attrib.items()}
    for child in element:
        name, value = _local(child.tag), _value(child, depth + 1)
        before = inside.get(name)
        if name not in inside:
            inside[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            inside[name] = [before, value]
    text = (element.text or "").strip()
    if not inside:
        return text
    return {**inside, "#text": text} if text else inside


def _local(name: str) -> str:
    """Return a name such as `{http://...}name` without its namespace."""
    return name.rpartition("}")[2]


# --- paths and tokens

TOKEN_BYTES_MAX: Final = 64 * 1024
"""Servers do not accept longer headers."""
HEADER: Final = "header:"
COOKIE: Final = "cookie:"
"""Prefixes of paths that do not refer to the body."""
_MISSING: Final = object()
_LOCAL: Final = re.compile(r"(\d{4})[-/]?(\d\d)[-/]?(\d\d)[T ]?(\d\d):?(\d\d):?(\d\d)(\.\d{1,6})?")
"""A point in time without a time zone, in any notation of vendors, such as `20261126180500`."""
_PLAIN: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_OFFSET: Final = re.compile(r"([+-])(\d\d):(\d\d)")


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of a token endpoint."""

    body: object
    """Parsed JSON or XML; None if it is neither."""
    headers: Mapping[str, str]
    """Values by name in lower case; cookies as `cookie:NAME`."""
    received: float
    """When the reply arrived, by this host's clock, in seconds since the epoch."""
    text: str = field(default="", repr=False)
    """The body as text."""
    status: int = 200
    _embedded: dict[str, object] = field(default_factory=dict, repr=False, compare=False)
    """The strings that contain JSON, parsed once each."""

    @property
    def server_time(self) -> float:
        """The time by the issuer's Date header (RFC 9110 6.6.1), or by our clock without one.

        Date has whole seconds. If our clock agrees with it, our clock supplies the fraction. Otherwise the
        second is assumed to be over, so that the lifetime is never overestimated.
        """
        date = self.date
        if date is None:
            return self.received
        return self.received if date <= self.received <= date + 1 else date + 1

    @property
    def has_clock(self) -> bool:
        """Whether the reply has a valid Date header."""
        return self.date is not None

    @property
    def date(self) -> float | None:
        """The Date header in seconds since the epoch, if it is valid."""
        return read_http_date(self.headers.get("date", ""))

    def find(self, path: str) -> object:
        """Return the value at a path, or None.

        A path consists of keys and list indexes with dots between them, or it is `header:NAME`,
        `cookie:NAME`, `cookie:NAME;max-age` or `cookie:NAME;expires`.
        """
        if path.startswith(HEADER):
            return self.headers.get(path.removeprefix(HEADER).lower())
        if path.startswith(COOKIE):
            return self.headers.get(path)
        value = find_path(self.body, path, self._parse)
        return None if value is _MISSING else value

    def _parse(self, text: str) -> object:
        if text not in self._embedded:
            self._embedded[text] = embedded(text)
        return self._embedded[text]


def find_path(value: object, path: str, parse: Callable[[str], object] = embedded) -> object:
    """Follow a dotted path through parsed JSON, and through strings that contain JSON.

    Args:
        value: The parsed JSON.
        path: Keys and indexes with dots between them.
        parse: Parses a string like `embedded`.
    """
    for step in path.split("."):
        if isinstance(value, str):
            value = parse(value)
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return _MISSING
    return value


def is_token(value: object) -> TypeGuard[str]:
    """Whether a value is one line of printable ASCII of limited length, without surrounding spaces."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= TOKEN_BYTES_MAX
        and value.isascii()
        and value.isprintable()
        and value.strip() == value
    )


# --- lifetimes

_JWT_DOTS: Final = 2  # RFC 7515 3.1: header, payload, signature


def own_expiry(token: str) -> list[tuple[str, str]]:
    """Return the candidate that reads the `exp` of a token that may be a JWT (RFC 7519)."""
    return [("", "jwt")] if token.count(".") == _JWT_DOTS else []


_LIFE_CHARACTERS_MAX: Final = 64
"""No lifetime or point in time is written with more, and longer ones take long to parse."""


def read_lifetime(
    candidates: Iterable[tuple[str, str]], reply: Reply, token: str, max_ttl: float
) -> float | None:
    """Return the first plausible lifetime among the candidates, in seconds; None if there is none.

    Args:
        candidates: Pairs of (path, unit), in order of preference.
        token: The token itself, for the unit `jwt` without a path.
        max_ttl: A longer lifetime is considered an error.
    """
    for path, unit in candidates:
        value = reply.find(path) if path else token
        seconds = life_of(value, unit, reply)
        if seconds is not None and 0 < seconds <= max_ttl:
            return seconds
    return None


def life_of(value: object, unit: str, reply: Reply) -> float | None:
    """Convert a value of a unit to a finite lifetime in seconds; None if that is not possible.

    `iso8601` may be followed by the UTC offset of times without a time zone, as in `iso8601+08:00`.
    """
    if isinstance(value, str) and len(value) > (TOKEN_BYTES_MAX if unit == "jwt" else _LIFE_CHARACTERS_MAX):
        return None
    offset = unit.removeprefix("iso8601") if unit.startswith("iso8601") else ""
    seconds = _iso8601(value, reply, offset) if offset else UNITS[unit](value, reply)
    return seconds if seconds is not None and math.isfinite(seconds) else None


def has_no_zone(value: object) -> bool:
    """Whether a value is a point in time without a time zone."""
    return isinstance(value, str | int) and _LOCAL.fullmatch(str(value).strip()) is not None


def is_certain(candidates: Iterable[tuple[str, str]], reply: Reply, token: str, max_ttl: float) -> bool:
    """Whether the result of `read_lifetime` is independent of this host's clock."""
    if reply.has_clock:
        return True
    for path, unit in candidates:
        if read_lifetime([(path, unit)], reply, token, max_ttl) is not None:
            claims = _claims(reply.find(path) if path else token) if unit == "jwt" else {}
            return unit in {"seconds", "milliseconds"} or _number(claims.get("iat")) is not None
    return True


def _number(value: object) -> float | None:
    """Return a finite number, given as a number or a string; "300s", "1_000" and true are none."""
    if isinstance(value, str):
        return float(value) if _PLAIN.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _seconds(value: object, _reply: Reply) -> float | None:
    return _number(value)


def _milliseconds(value: object, _reply: Reply) -> float | None:
    number = _number(value)
    return None if number is None else number / 1000


def _epoch(value: object, reply: Reply) -> float | None:
    number = _number(value)
    return None if number is None else number - reply.server_time


def _epoch_ms(value: object, reply: Reply) -> float | None:
    number = _number(value)
    return None if number is None else number / 1000 - reply.server_time


def _iso8601(value: object, reply: Reply, offset: str = "+00:00") -> float | None:
    """Accept HTTP dates as well (RFC 9110 5.6.7); `offset` applies to times without a time zone."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        return None
    text = str(value).strip()
    local = _LOCAL.fullmatch(text)
    if local:
        text = "{}-{}-{}T{}:{}:{}".format(*local.groups()[:6]) + (local[7] or "")
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return _http_date(text, reply)
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=_zone(offset))
    return instant.timestamp() - reply.server_time


def _http_date(text: str, reply: Reply) -> float | None:
    date = read_http_date(text)
    return None if date is None else date - reply.server_time


def _zone(offset: str) -> timezone:
    parts = _OFFSET.fullmatch(offset)
    if parts is None:
        return UTC
    ahead = timedelta(hours=int(parts[2]), minutes=int(parts[3]))
    return timezone(ahead if parts[1] == "+" else -ahead)


def _jwt(value: object, reply: Reply) -> float | None:
    """Read the expiry of a JWT (RFC 7519 4.1.4), without verifying it."""
    claims = _claims(value)
    expires, issued = _number(claims.get("exp")), _number(claims.get("iat"))
    if expires is None:
        return None
    if not reply.has_clock and issued is not None:
        return expires - issued
    return expires - reply.server_time


def _claims(value: object) -> dict[str, object]:
    try:
        payload = str(value).split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


UNITS: Final[Mapping[str, Callable[[object, Reply], float | None]]] = {
    "seconds": _seconds,
    "milliseconds": _milliseconds,
    "epoch": _epoch,
    "epoch_ms": _epoch_ms,
    "iso8601": _iso8601,
    "jwt": _jwt,
}
"""The conversion of each unit of `as` to a lifetime in seconds."""


def duration(seconds: float) -> str:
    """Write a duration with its two largest units: `4 min 50 s`."""
    left = round(seconds)
    if left < 10:
        return f"{seconds:.3g} s"
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])
