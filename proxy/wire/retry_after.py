"""When an answer asks for the request to be sent again (pure)."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from proxy.wire.headers import Headers, find_header

_DAY: Final = 86400.0


def read_retry_after(headers: Headers, now: float) -> float | None:
    """Seconds after which an answer asks to be asked again; None where it does not, or cannot be understood.

    `Retry-After` holds seconds or a date (RFC 9110 10.2.3), OpenAI's `retry-after-ms` milliseconds and counts
    before it; `x-should-retry` decides outright, as in OpenAI's clients.

    Args:
        headers: Of the answer.
        now: Seconds since the epoch.
    """
    decided = (find_header(headers, b"x-should-retry") or b"").strip().lower()
    if decided == b"false":
        return None
    milliseconds = _number(find_header(headers, b"retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = find_header(headers, b"retry-after")
    seconds = _number(value)
    if seconds is None and value is not None:
        seconds = _seconds_until(value, now)
    return 0.0 if seconds is None and decided == b"true" else seconds


def _number(value: bytes | None) -> float | None:
    try:
        number = float(value or b"")
    except ValueError:
        return None
    return number if 0 <= number < _DAY * 365_000 else None  # neither negative nor infinite nor "nan"


def _seconds_until(value: bytes, now: float) -> float | None:
    try:
        date = parsedate_to_datetime(value.decode("latin-1"))
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max((date - datetime.fromtimestamp(now, UTC)).total_seconds(), 0.0)
    except (ValueError, OverflowError):
        return None
