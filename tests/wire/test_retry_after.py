"""When a response asks for a retry: seconds, a date, milliseconds, or yes or no."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.headers import Headers
from proxy.wire.retry_after import read_retry_after

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"retry-after", b"3")], 3.0),
        ([(b"Retry-After", b" 3 ")], 3.0),
        ([(b"retry-after", b"0")], 0.0),
        ([(b"retry-after", b"1.5")], 1.5),
        ([(b"retry-after", b"-1")], None),
        ([(b"retry-after", b"nan")], None),
        ([(b"retry-after", b"inf")], None),
        ([(b"retry-after", b"1e400")], None),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"")], None),
        ([(b"retry-after", b"\xff")], None),
        ([(b"retry-after", formatdate(NOW + 20, usegmt=True).encode())], 20.0),
        ([(b"retry-after", formatdate(NOW - 20, usegmt=True).encode())], 0.0),
        ([(b"retry-after-ms", b"250")], 0.25),
        ([(b"retry-after-ms", b"250"), (b"retry-after", b"9")], 0.25),
        ([(b"retry-after-ms", b"x"), (b"retry-after", b"9")], 9.0),
        ([(b"x-should-retry", b"true")], 0.0),
        ([(b"x-should-retry", b"true"), (b"retry-after", b"4")], 4.0),
        ([(b"x-should-retry", b"false"), (b"retry-after", b"4")], None),
        ([(b"x-should-retry", b"maybe")], None),
    ],
)
def test_the_delay_that_a_response_asks_for(headers: Headers, seconds: float | None) -> None:
    assert read_retry_after(headers, NOW) == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


@given(st.binary(max_size=60))
def test_any_value_is_seconds_or_none(value: bytes) -> None:
    for name in (b"retry-after", b"retry-after-ms"):
        seconds = read_retry_after([(name, value)], NOW)
        assert seconds is None or 0 <= seconds < 1e15
