"""Pydantic's errors in words of our own: its messages may quote what was written, a secret perhaps."""

from collections.abc import Iterator, Mapping
from typing import get_args

from pydantic import ValidationError

from proxy.settings.locations import KeyPath
from proxy.settings.models import Settings
from proxy.settings.problems import Problem, suggestion
from proxy.settings.section import REFUSED, Section

_WORDS: Mapping[str, str] = {
    "missing": "is required",
    "literal_error": "must be {expected}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "union_tag_invalid": "must be one of {expected_tags}",
    "union_tag_not_found": (
        'is required: "static", "file", "exec", "oauth2", "jwt", "azure", "google", "bedrock" or "http"'
    ),
    REFUSED: "{words}",
}
_WORDS_BY_KIND: Mapping[str, str] = {  # the first part of the type: int_type, int_parsing, int_from_float
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be a string",
    "path": "must be the path of a file",
    "tuple": "must be an array; one of tables is written with double brackets, as [[access.keys]]",
    "model": "must be a table",
    "dict": "must be a table",
}


def problems_of(error: ValidationError) -> Iterator[Problem]:
    """Tell each error of a `Settings` at the key path where the user wrote the value."""
    for details in error.errors(include_url=False, include_input=False):
        yield Problem(_as_written(details["type"], details["loc"]), _words(details["type"], details))


def _words(kind: str, details: Mapping[str, object]) -> str:
    location, context = details["loc"], details.get("ctx")
    if kind == "extra_forbidden" and isinstance(location, tuple):
        return f"unknown key, {suggestion(str(location[-1]), _known_keys(location[:-1]))}"
    template = _WORDS.get(kind) or _WORDS_BY_KIND.get(kind.split("_")[0], "is not valid")
    words = template.format_map(context if isinstance(context, dict) else {})
    return words.replace("'", '"') if "expected" in template else words


def _as_written(kind: str, location: KeyPath) -> KeyPath:
    """Undo what pydantic and the shape of the models add to a path."""
    parts = [part for part in location if part != "[key]"]
    if parts[:2] == ["routes", "endpoints"]:
        del parts[1]
    if parts[0] == "credentials":
        del parts[2:3]  # the source, by which pydantic tells the kinds of credential apart
    if kind.startswith("union_tag"):
        parts.append("source")
    return tuple(parts)


def _known_keys(location: KeyPath) -> set[str]:
    """Find the keys of the table at a path, a credential's source included in the path as pydantic has it."""
    sections: list[type[Section]] = [Settings]
    for part in location:
        # A name that the user chose, or an index, leads to no other model.
        sections = [below for section in sections for below in _sections_at(section, part)] or sections
    return {field.alias or name for section in sections for name, field in section.model_fields.items()}


def _sections_at(section: type[Section], part: str | int) -> Iterator[type[Section]]:
    for name, field in section.model_fields.items():
        if part == (field.alias or name):
            yield from _sections_in(field.annotation)
        elif name == "source" and part in get_args(field.annotation):
            yield section


def _sections_in(annotation: object) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections_in(argument)
