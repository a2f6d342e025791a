"""The base of every table of the settings, and the problems that validation reports.

Tables are closed and immutable, and no message repeats a value, which may be a secret.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple, NoReturn, TypeAlias, TypeVar

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

KeyPath: TypeAlias = tuple[str | int, ...]

FREE_TABLES: Final = frozenset(
    {"claims", "env", "form", "headers", "json", "options", "params", "query", "tools"}
)
"""Tables with keys chosen by the user, whose values are sent or passed on: any of them may be a secret."""

REJECTED = "rejected"
"""Pydantic's error type for problems with our own message."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

K = TypeVar("K")
V = TypeVar("V")


class Section(BaseModel):
    """A table of the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)


class Checked(msgspec.Struct, frozen=True):
    """Annotation: `check` receives the input and returns the value, or rejects it.

    Unlike pydantic's PlainValidator it leaves the annotated type alone, which may be recursive or foreign.
    """

    check: Callable[[object], object]

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        """Implement pydantic's hook for custom types."""
        return core_schema.no_info_plain_validator_function(self.check)


def frozen(table: Mapping[K, V]) -> Mapping[K, V]:
    """Return a read-only copy."""
    return MappingProxyType(dict(table))


Table = Annotated[Mapping[K, V], AfterValidator(frozen)]
"""A read-only table whose keys are chosen by the user."""


# --- rejecting values


class Problem(NamedTuple):
    """A problem with the value at a key path."""

    path: KeyPath
    words: str


def reject(words: str, *path: str | int) -> NoReturn:
    """Fail validation with a message of our own, at a path relative to the value being validated.

    Raises:
        ValidationError: Always.
    """
    raise _validation_error([Problem(path, words)])


def reject_all(problems: Iterable[Problem]) -> None:
    """Fail validation if there are any problems; paths are relative to the value being validated.

    Raises:
        ValidationError: There is at least one problem.
    """
    found = [*problems]
    if found:
        raise _validation_error(found)


def _validation_error(problems: Iterable[Problem]) -> ValidationError:
    details = [
        InitErrorDetails(
            type=PydanticCustomError(REJECTED, "{words}", {"words": words}), loc=path, input=None
        )
        for path, words in problems
    ]
    return ValidationError.from_exception_data("settings", details, hide_input=True)


def reject_together(keys: Mapping[str, object], missing: str = "") -> None:
    """Reject more than one of several keys, and none of them if `missing` says why one is required.

    Args:
        keys: The values of the keys; None for a key that is not set.
        missing: The message for the first key if none is set; empty if all may be absent.

    Raises:
        ValidationError: Two keys are set, or none.
    """
    given = [key for key, value in keys.items() if value is not None]
    if missing and not given:
        reject(missing, next(iter(keys)))
    if len(given) > 1:
        reject(f"cannot be combined with {given[0]}: give only one of them", given[1])


class Choice(NamedTuple):
    """The keys that go with one value of a deciding key, such as `method = "cli"`."""

    key: str
    value: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f'{self.key} = "{self.value}"'


def problems_of_choices(
    section: Section, choices: Sequence[Choice], hints: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Problem]:
    """Find keys that the chosen values require, and keys that have no effect with them.

    Keys that no choice mentions are left alone.

    Args:
        section: The section to check.
        choices: Every value of every deciding key.
        hints: For each key, an explanation to append when the key is missing.
    """
    users: dict[str, list[Choice]] = {}
    for choice in choices:
        for key in (*choice.required, *choice.optional):
            users.setdefault(key, []).append(choice)
    chosen = [choice for choice in choices if getattr(section, choice.key) == choice.value]
    for key, choices_with_key in users.items():
        requiring = next((choice for choice in chosen if key in choice.required), None)
        if requiring is not None and getattr(section, key) is None:
            yield Problem((key,), f"is required for {requiring}{hints.get(key, '')}")
        elif key in section.model_fields_set and not any(choice in chosen for choice in choices_with_key):
            yield Problem((key,), f"is only used with {' or '.join(map(str, choices_with_key))}")


# --- words


def dotted(path: KeyPath) -> str:
    """Write a key path as TOML does: `routes."chat/completions"`; an index as in `access.keys.0.key`."""
    return ".".join(
        str(part) if isinstance(part, int) or _BARE_KEY.fullmatch(part) else quoted(part) for part in path
    )


def listed(names: Iterable[str]) -> str:
    """Write `"a", "b"`."""
    return ", ".join(f'"{name}"' for name in sorted(names))


def suggestion(written: str, known: Collection[str]) -> str:
    """Suggest the known name nearest to the one written, or list all of them."""
    near = get_close_matches(written, known, n=1)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known: {listed(known)}" if known else "there are none"


def quoted(text: str) -> str:
    """Write a TOML string, escaping every character that is invisible or could control a terminal."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in {'"', "\\"}:
        return f"\\{character}"
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
