"""What every table of the settings is built on: closed, immutable, and silent about its input."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from proxy.settings.problems import Problem

REFUSED = "refused"  # pydantic's type of an error whose words are ours

K = TypeVar("K")
V = TypeVar("V")


class Section(BaseModel):
    """A table of the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)


@dataclass(frozen=True)
class Checked:
    """Annotation: the value is whatever `check` returns for the input, which it may refuse.

    Unlike pydantic's PlainValidator it leaves the annotated type alone, which may be recursive or foreign.
    """

    check: Callable[[object], object]

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        """Pydantic's hook: see its documentation on custom types."""
        return core_schema.no_info_plain_validator_function(self.check)


def frozen(table: Mapping[K, V]) -> Mapping[K, V]:
    """Return a read-only copy."""
    return MappingProxyType(dict(table))


Table = Annotated[Mapping[K, V], AfterValidator(frozen)]
"""A table whose keys the user names; read-only."""


def refuse(words: str, *path: str | int) -> NoReturn:
    """Fail validation with words of our own, at a key path below the value at hand.

    Raises:
        ValidationError: Always.
    """
    refuse_all([Problem(path, words)])


def refuse_all(problems: Iterable[Problem]) -> NoReturn:
    """Fail validation with several problems, their paths below the value at hand.

    Raises:
        ValidationError: Always; pydantic sets the paths below the one that it is at.
    """
    details = [
        InitErrorDetails(type=PydanticCustomError(REFUSED, "{words}", {"words": words}), loc=path, input=None)
        for path, words in problems
    ]
    raise ValidationError.from_exception_data("settings", details, hide_input=True)
