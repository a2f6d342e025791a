"""Dates in headers: every format of RFC 9110 is in UTC, whatever the time zone of this host."""

import time
from collections.abc import Iterator

import pytest

from proxy.wire.http_date import read_http_date

SECONDS = 784_111_777.0


@pytest.fixture(params=["UTC", "Asia/Shanghai", "America/New_York"], autouse=True)
def host_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the time zone of this host."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37 -0000",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 16:49:37 +0800",
    ],
)
def test_a_date_is_read_whatever_its_format(text: str) -> None:
    assert read_http_date(text) == SECONDS


@pytest.mark.parametrize("text", ["", "now", "300", "Sun, 31 Feb 1994 08:49:37 GMT", "-1 -1 -1", "\0"])
def test_other_text_is_not_a_date(text: str) -> None:
    assert read_http_date(text) is None
