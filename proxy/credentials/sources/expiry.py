"""Read from a token reply how long the token lives (pure).

Vendors write it as seconds, milliseconds, epochs in either, ISO 8601 or inside a JWT; as numbers or strings.
Instants become lifetimes against the reply's own Date header, so that this host's clock does not matter.
"""

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Reply:
    """A token endpoint's answer, as far as it is looked at."""

    body: Any
    """Parsed JSON, or None where it is none."""
    headers: Mapping[str, str]
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
        try:
            date = parsedate_to_datetime(self.headers["date"]).timestamp()
        except (KeyError, ValueError, TypeError, OverflowError):
            return self.received
        return self.received if date <= self.received <= date + 1 else date + 1

    def find(self, path: str) -> Any:
        """The value at a dotted path, with digits for list positions; None where there is nothing."""
        value = find_path(self.body, path)
        return None if value is _MISSING else value


def find_path(value: Any, path: str) -> Any:
    """Walk a dotted path through parsed JSON."""
    for step in path.split("."):
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
        seconds = UNITS[unit](value, reply)
        if seconds is not None and math.isfinite(seconds) and 0 < seconds <= max_ttl:
            return seconds
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)  # "300" is as good as 300; "300s" is not
    except (ValueError, OverflowError):
        return None


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


def _iso8601(value: Any, reply: Reply) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() - reply.server_time


def _jwt(value: Any, reply: Reply) -> float | None:
    """RFC 7519 4.1.4; read, not verified: the upstream verifies it."""
    claims = _claims(value)
    expires, issued = _number(claims.get("exp")), _number(claims.get("iat"))
    if expires is None:
        return None
    if "date" not in reply.headers and issued is not None:
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
