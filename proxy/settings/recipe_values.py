"""JSON and text that requests send. Strings from the environment or from files become secrets."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator

from proxy.secret import Secret
from proxy.settings.fields import header_text, secret
from proxy.settings.interpolation import Interpolated, LateText
from proxy.settings.section import Checked, KeyPath, Problem, frozen, reject, reject_all

Json: TypeAlias = (
    bool | int | float | str | Secret | LateText | tuple["Json", ...] | Mapping[str, "Json"] | None
)
"""A read-only JSON value: objects are mappings, arrays are tuples, strings may be secret or late."""


def json_value(value: object) -> Json:
    """Validate and freeze a JSON value; an `Interpolated` string becomes a secret."""
    reject_all(_json_problems(value, ()))
    return _frozen_json(value)


def _json_problems(value: object, path: KeyPath) -> Iterator[Problem]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _json_problems(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _json_problems(item, (*path, index))
    elif isinstance(value, Interpolated) and not value:
        yield Problem(path, "is empty")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(path, "must be a finite number")
    elif not isinstance(value, bool | int | float | str | Secret | LateText | None):
        yield Problem(path, "cannot be represented in JSON: write it as a string")


def _frozen_json(value: object) -> Json:
    if isinstance(value, Mapping):
        return frozen({key: _frozen_json(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_frozen_json(item) for item in value)
    if isinstance(value, Interpolated):
        return Secret(str(value))
    if isinstance(value, bool | int | float | str | Secret | LateText):
        return value
    return None


def _text(value: object) -> str | Secret | LateText:
    if isinstance(value, LateText):
        return value
    if isinstance(value, Secret | Interpolated):
        return secret(value)
    if not isinstance(value, str):
        reject("must be a string")
    return value


def _header(value: object) -> str | Secret | LateText:
    if isinstance(value, LateText):
        for part in value.parts:
            if isinstance(part, str):
                header_text(part)
    else:
        header_text(value.reveal() if isinstance(value, Secret) else value)
    return _text(value)


def _secret_or_late(value: object) -> Secret | LateText:
    return value if isinstance(value, LateText) else secret(value)


def _pair(value: object) -> object:
    if not isinstance(value, list | tuple) or len(value) != 2:
        reject('must be a pair: ["id", "secret"]')
    return tuple(value)


def _scalar(value: object) -> bool | int | float | str:
    if not isinstance(value, bool | int | float | str) or value != value:
        reject("must be a single string, number, true or false")
    return str(value) if isinstance(value, str) else value


Text = Annotated[str | Secret | LateText, Checked(_text)]
SecretOrLate = Annotated[Secret | LateText, Checked(_secret_or_late)]
HeaderTextOrSecret = Annotated[str | Secret | LateText, Checked(_header)]
BasicPair = Annotated[tuple[Text, SecretOrLate], BeforeValidator(_pair)]
Scalar = Annotated[bool | int | float | str, Checked(_scalar)]
