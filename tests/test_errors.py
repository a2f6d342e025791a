"""Errors: which of them ask the caller to retry, and when."""

from collections.abc import Iterator

import pytest

from proxy.errors import ProxyError, RateLimited


def subclasses(cls: type[ProxyError]) -> Iterator[type[ProxyError]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


@pytest.mark.parametrize("error", [each for each in subclasses(ProxyError) if each.status in {429, 503}])
def test_temporary_errors_ask_for_a_retry(error: type[ProxyError]) -> None:
    assert error().headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "1"), (0.4, "1"), (1.0, "1"), (1.2, "2"), (60.0, "60")]
)
def test_retry_after_is_in_whole_seconds_rounded_up(seconds: float, header: str) -> None:
    assert RateLimited(retry_after=seconds).headers["Retry-After"] == header
