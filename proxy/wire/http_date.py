"""Read the dates in HTTP headers and cookies (pure)."""

from datetime import UTC
from email.utils import parsedate_to_datetime


def read_http_date(text: str) -> float | None:
    """Return a date (RFC 9110 5.6.7) in seconds since the epoch; None if the text is not a date.

    A date without a time zone, such as one in the format of `asctime`, is in UTC.
    """
    try:
        date = parsedate_to_datetime(text)
        return (date.replace(tzinfo=UTC) if date.tzinfo is None else date).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
