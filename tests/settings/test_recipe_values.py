"""Values in requests for tokens: JSON is immutable, and values from files and variables are secret."""

import math
from types import MappingProxyType

import pytest
from pydantic import TypeAdapter, ValidationError

from proxy.secret import Secret
from proxy.settings.interpolation import Interpolated, LateText
from proxy.settings.recipe_values import BasicPair, HeaderTextOrSecret, Scalar, Text, json_value


def test_json_is_frozen_and_strings_from_outside_become_secrets() -> None:
    value = json_value({"a": [1, 2.5, True, None, "plain"], "b": Interpolated("canary")})
    assert value == {"a": (1, 2.5, True, None, "plain"), "b": Secret("canary")}
    with pytest.raises(TypeError):
        value["a"] = ()  # type: ignore[index]
    assert isinstance(value, MappingProxyType)
    assert "canary" not in repr(value)


@pytest.mark.parametrize("value", [{"a": [math.inf]}, {"a": math.nan}, [object()], Interpolated("")])
def test_values_that_json_cannot_represent_are_rejected(value: object) -> None:
    with pytest.raises(ValidationError):
        json_value(value)


def test_text_from_outside_is_secret_and_literal_text_is_not() -> None:
    text = TypeAdapter[str | Secret | LateText](Text)
    assert text.validate_python("plain") == "plain"
    assert text.validate_python(Interpolated("canary")) == Secret("canary")
    with pytest.raises(ValidationError):
        text.validate_python(7)


@pytest.mark.parametrize("value", ["a\nb", "a\r\nX: b", "a\x00", Interpolated("a\nb")])
def test_a_header_contains_no_line_break(value: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[object](HeaderTextOrSecret).validate_python(value)


@pytest.mark.parametrize("value", ["id:secret", ["id"], ["id", "secret", "more"]])
def test_basic_authentication_is_a_pair(value: object) -> None:
    pair = TypeAdapter[tuple[object, ...]](BasicPair)
    assert pair.validate_python(["id", Interpolated("s")]) == ("id", Secret("s"))
    with pytest.raises(ValidationError):
        pair.validate_python(value)


def test_a_scalar_is_one_value() -> None:
    scalar = TypeAdapter[object](Scalar)
    assert [scalar.validate_python(value) for value in (0, 1.5, False, "x")] == [0, 1.5, False, "x"]
    refused: list[object] = [None, [], {}, math.nan]
    for value in refused:
        with pytest.raises(ValidationError):
            scalar.validate_python(value)
