"""Read when a response asks for a retry (pure)."""

from typing import Final

from proxy.wire.headers import Headers, find_header
from proxy.wire.http_date import read_http_date

_DAY: Final = 86400.0


def read_retry_after(headers: Headers, now: float) -> float | None:
    """Return the seconds after which a response asks for a retry; None if it does not.

    As in OpenAI's clients, `x-should-retry: false` forbids a retry, and `retry-after-ms` has precedence over
    `Retry-After`, which holds seconds or a date (RFC 9110 10.2.3).

    Args:
        headers: The headers of the response.
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
        date = read_http_date(value.decode("latin-1"))
        seconds = None if date is None else max(date - now, 0.0)
    return 0.0 if seconds is None and decided == b"true" else seconds


def _number(value: bytes | None) -> float | None:
    try:
        number = float(value or b"")
    except ValueError:
        return None
    return number if 0 <= number < _DAY * 365_000 else None  # Not negative, infinite or NaN.
