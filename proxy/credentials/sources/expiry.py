"""Read from a token reply how long the token lives (pure).

Vendors write it as seconds, milliseconds, epochs in either, ISO 8601 or inside a JWT; as numbers or strings.
Instants become lifetimes against the reply's own Date header, so that this host's clock does not matter.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final

from proxy.credentials.sources.reply_body import embedded

HEADER: Final = "header:"
COOKIE: Final = "cookie:"
"""How paths begin that do not lead into the body."""
_MISSING: Final = object()
_LOCAL: Final = re.compile(r"(\d{4})[-/]?(\d\d)[-/]?(\d\d)[T ]?(\d\d):?(\d\d):?(\d\d)(\.\d{1,6})?")
"""A point in time without a zone, in the ways that vendors write one: `20261126180500`, too."""
_PLAIN: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_OFFSET: Final = re.compile(r"([+-])(\d\d):(\d\d)")


@dataclass(frozen=True, slots=True)
class Reply:
    """A token endpoint's answer, as far as it is looked at."""

    body: Any
    """Parsed JSON or XML, or None where it is neither."""
    headers: Mapping[str, str]
    """By their names in lower case; cookies as `cookie:NAME`."""
    received: float
    """This host's wall clock, seconds since the epoch: the last resort."""
    text: str = field(default="", repr=False)
    """The body as text."""
    status: int = 200

    @property
    def server_time(self) -> float:
        """The issuer's clock (RFC 9110 6.6.1), or ours where it does not say.

        Its Date is cut to whole seconds. Where our clock agrees with it, ours tells the fraction; where it
        does not, the second counts as over, so that no token is believed to live longer than it does.
        """
        date = self._date
        if date is None:
            return self.received
        return self.received if date <= self.received <= date + 1 else date + 1

    @property
    def has_clock(self) -> bool:
        """Whether the reply says what time it is for the issuer."""
        return self._date is not None

    @property
    def _date(self) -> float | None:
        try:
            return parsedate_to_datetime(self.headers["date"]).timestamp()
        except (KeyError, ValueError, TypeError, OverflowError):
            return None

    def find(self, path: str) -> Any:
        """The value at a path; None where there is nothing.

        A path has dots between its steps and digits for list positions, or it is `header:NAME`,
        `cookie:NAME`, `cookie:NAME;max-age` or `cookie:NAME;expires`.
        """
        if path.startswith(HEADER):
            return self.headers.get(path.removeprefix(HEADER).lower())
        if path.startswith(COOKIE):
            return self.headers.get(path)
        value = find_path(self.body, path)
        return None if value is _MISSING else value


def find_path(value: Any, path: str) -> Any:
    """Walk a dotted path through parsed JSON, and through strings that are JSON themselves."""
    for step in path.split("."):
        if isinstance(value, str):
            value = embedded(value)
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return _MISSING
    return value


def read_lifetime(
    candidates: Iterable[tuple[str, str]], reply: Reply, token: str, max_ttl: float
) -> float | None:
    """The first plausible lifetime among the candidates, in seconds; None where there is none.

    Args:
        candidates: Pairs of (path, unit), in order of trust.
        reply: The answer.
        token: The token itself, for the unit `jwt` without a path.
        max_ttl: What is longer is taken for a mistake of units.
    """
    for path, unit in candidates:
        value = reply.find(path) if path else token
        seconds = life_of(value, unit, reply)
        if seconds is not None and math.isfinite(seconds) and 0 < seconds <= max_ttl:
            return seconds
    return None


def life_of(value: Any, unit: str, reply: Reply) -> float | None:
    """Seconds of life that a value means in a unit; None where it cannot be read so.

    `iso8601` may have the offset of the issuer's clock behind it, `iso8601+08:00`, for times without a zone.
    """
    offset = unit.removeprefix("iso8601") if unit.startswith("iso8601") else ""
    return _iso8601(value, reply, offset) if offset else UNITS[unit](value, reply)


def has_no_zone(value: Any) -> bool:
    """Whether a value is a point in time that does not say in which zone."""
    return isinstance(value, str | int) and _LOCAL.fullmatch(str(value).strip()) is not None


def is_certain(candidates: Iterable[tuple[str, str]], reply: Reply, token: str, max_ttl: float) -> bool:
    """Whether the lifetime that `read_lifetime` returns is independent of this host's clock."""
    if reply.has_clock:
        return True
    for path, unit in candidates:
        if read_lifetime([(path, unit)], reply, token, max_ttl) is not None:
            claims = _claims(reply.find(path) if path else token) if unit == "jwt" else {}
            return unit in {"seconds", "milliseconds"} or _number(claims.get("iat")) is not None
    return True


def _number(value: Any) -> float | None:
    """A plain number: "300" is as good as 300; "300s", "1_000", NaN and true are none."""
    if isinstance(value, str):
        return float(value) if _PLAIN.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _seconds(value: Any, _reply: Reply) -> float | None:
    return _number(value)


def _milliseconds(value: Any, _reply: Reply) -> float | None:
    number = _number(value)
    return None if number is None else number / 1000


def _epoch(value: Any, reply: Reply) -> float | None:
    number = _number(value)
    return None if number is None else number - reply.server_time


def _epoch_ms(value: Any, reply: Reply) -> float | None:
    number = _number(value)
    return None if number is None else number / 1000 - reply.server_time


def _iso8601(value: Any, reply: Reply, offset: str = "+00:00") -> float | None:
    """Also without a zone, which `offset` then gives, and in HTTP's own form (RFC 9110 5.6.7)."""
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
    try:
        return parsedate_to_datetime(text).timestamp() - reply.server_time
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _zone(offset: str) -> timezone:
    parts = _OFFSET.fullmatch(offset)
    if parts is None:
        return UTC
    ahead = timedelta(hours=int(parts[2]), minutes=int(parts[3]))
    return timezone(ahead if parts[1] == "+" else -ahead)


def _jwt(value: Any, reply: Reply) -> float | None:
    """RFC 7519 4.1.4; read, not verified: the upstream verifies it."""
    claims = _claims(value)
    expires, issued = _number(claims.get("exp")), _number(claims.get("iat"))
    if expires is None:
        return None
    if not reply.has_clock and issued is not None:
        return expires - issued
    return expires - reply.server_time


def _claims(value: Any) -> dict[str, Any]:
    try:
        payload = str(value).split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


UNITS: Final[Mapping[str, Callable[[Any, Reply], float | None]]] = {
    "seconds": _seconds,
    "milliseconds": _milliseconds,
    "epoch": _epoch,
    "epoch_ms": _epoch_ms,
    "iso8601": _iso8601,
    "jwt": _jwt,
}
"""How each unit of `as` turns a value into seconds of life."""


def duration(seconds: float) -> str:
    """Write a length of time with its two largest units: `4 min 50 s`."""
    left = round(seconds)
    if left < 10:
        return f"{seconds:.3g} s"
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])
