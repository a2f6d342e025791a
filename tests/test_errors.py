"""Errors: the drawing of their classes, and which of them ask the caller to retry, and when."""

import copy
import re
from collections.abc import Iterator
from typing import Final

import pytest

from proxy import errors
from proxy.errors import Aborted, ProxyError, RateLimited

LINE: Final = re.compile(r"^    ( *)([A-Z]\w+)(?: +(\(?\d{3}\)?) +([a-z_]+))?", re.MULTILINE)
"""A line of the drawing in the module's docstring: indentation, class, status and code."""


def subclasses(cls: type[ProxyError]) -> Iterator[type[ProxyError]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def drawn() -> Iterator[tuple[str, str, str, str]]:
    """Yield each class of the drawing with its base, status and code; families have neither."""
    above = [Exception.__name__]
    for indent, name, status, code in LINE.findall(errors.__doc__ or ""):
        del above[len(indent) // 2 + 1 :]
        yield name, above[-1], status, code
        above.append(name)


def defined() -> Iterator[tuple[str, str, str, str]]:
    """Yield the classes of the module in the same form."""
    families = {ProxyError, *ProxyError.__subclasses__()}
    every: list[type[ProxyError]] = [ProxyError, *subclasses(ProxyError)]
    for error in every:
        status = f"({error.status})" if error is Aborted else str(error.status)
        row = ("", "") if error in families else (status, error.code)
        yield error.__name__, error.__bases__[0].__name__, *row


def test_the_drawing_shows_each_error_with_its_base_status_and_code() -> None:
    assert {*drawn()} == {*defined(), ("SettingsError", "Exception", "", "")}


@pytest.mark.parametrize("error", [each for each in subclasses(ProxyError) if each.status in {429, 503}])
def test_temporary_errors_ask_for_a_retry(error: type[ProxyError]) -> None:
    assert error().headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "1"), (0.4, "1"), (1.0, "1"), (1.2, "2"), (60.0, "60")]
)
def test_retry_after_is_in_whole_seconds_rounded_up(seconds: float, header: str) -> None:
    assert RateLimited(retry_after=seconds).headers["Retry-After"] == header


@pytest.mark.parametrize(
    "error",
    [
        errors.BodyTooLarge(5),
        errors.TokenUnavailable(7.0, reason="r"),
        errors.InvalidResponse("what", reason="r"),
        errors.BadResponse("words", param="p", headers={"X-A": "1"}, retry_after=3.0, reason="r"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_copy_of_an_error_is_another_instance_with_the_same_content(error: ProxyError) -> None:
    copied = copy.copy(error)
    assert copied is not error
    assert (type(copied), copied.args, vars(copied)) == (type(error), error.args, vars(error))
