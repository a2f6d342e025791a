"""Load a TOML file and the environment into validated settings, or report everything that is wrong."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, get_args

from pydantic import ValidationError

from proxy.errors import SettingsError
from proxy.settings.environment import apply_overrides
from proxy.settings.interpolation import Interpolation, file_names
from proxy.settings.locations import Place, key_lines, report
from proxy.settings.references import reference_problems, with_routes
from proxy.settings.section import REJECTED, KeyPath, Problem, Section, suggestion
from proxy.settings.sections import Settings

_CURLY_QUOTES: Final = "\u201c\u201d\u2018\u2019\uff02"
_MEANINGS: Final = {
    "Illegal character": "a quote is not closed on this line",
    "Unterminated string": "a quote is not closed",
    "Expected '\"": "a quote is not closed",
    "Expected \"'": "a quote is not closed",
    "Unclosed array": "its ] is missing",
    "Unclosed inline table": "its } is missing, or it continues on another line, which TOML forbids",
    "Expected ']'": "the ] of a section's header is missing",
    "Expected newline": "a line holds one key and one value, and text needs quotes around it",
    "Invalid value": "text needs quotes around it, and true and false are lower case",
    "Invalid statement": "a line is a [section], a key = value, or a # comment",
    "Expected '=' after a key": "a key needs = and a value",
    "Cannot declare": "the section exists twice",
    "Cannot overwrite a value": "the key exists twice",
    "Unescaped '\\'": "double the backslash, or use single quotes, for example for Windows paths",
    "Invalid hex value": "double the backslash, or use single quotes, for example for Windows paths",
}
"""The start of a message of tomllib, and the most likely mistake."""
_SYNTAX_ERROR = re.compile(r"(?P<words>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)")


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read a TOML file, apply `PROXY__SECTION__KEY`, resolve `${env:}` and `${file:}`, and validate it all.

    Args:
        path: The file. Relative paths in it are resolved against its folder.
        environ: The environment, normally `os.environ`.

    Raises:
        SettingsError: All problems, one line each, with place and key.
    """
    text = _read(path)
    tree, lines = _parse(path, text)
    places: dict[KeyPath, Place] = {
        (): Place(str(path)),
        **{key: Place(str(path), line) for key, line in lines.items()},
    }
    problems = apply_overrides(tree, places, environ)
    settings = _settings(tree, Interpolation(environ, path.parent), problems)
    if problems or settings is None:
        raise SettingsError(*report(problems, places))
    return settings


def referenced_files(path: Path, environ: Mapping[str, str]) -> list[Path]:
    """Return the files that `${file:}` names in a settings file and in its overrides.

    Without a settings file that can be read, there are none: `load_settings` reports the problem.
    """
    try:
        tree, _ = _parse(path, _read(path))
    except SettingsError:
        return []
    apply_overrides(tree, {}, environ)
    return sorted({path.parent / name for name in file_names(tree)})


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read: {error.strerror}; name the settings file with --config FILE or in "
            "PROXY_CONFIG"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(
            f"{path}:{line}: is not valid UTF-8: save the file as UTF-8; PowerShell's > and >> write UTF-16"
        ) from None


def _parse(path: Path, text: str) -> tuple[dict[str, object], dict[KeyPath, int]]:
    try:
        return tomllib.loads(text), key_lines(text)
    except tomllib.TOMLDecodeError as error:
        match = _SYNTAX_ERROR.fullmatch(str(error))
        words = match["words"] if match else str(error)
        line = int(match["line"]) if match and match["line"] else text.count("\n") + 1
        meaning = _meaning(words, text.split("\n")[line - 1])
        raise SettingsError(f"{path}:{line}: not valid TOML: {words}{meaning}") from None
    except RecursionError:
        raise SettingsError(f"{path}: not valid TOML: nested too deeply") from None


def _meaning(words: str, line: str) -> str:
    """Explain what most likely causes a message of tomllib."""
    if any(quote in line for quote in _CURLY_QUOTES):
        return ": replace the curly quotes with straight ones, \" or '"
    return next((f": {meaning}" for start, meaning in _MEANINGS.items() if words.startswith(start)), "")


def _settings(
    tree: dict[str, object], interpolation: Interpolation, problems: list[Problem]
) -> Settings | None:
    """Build the settings, and collect all problems."""
    written = {key: interpolation.tree(value, (key,)) for key, value in tree.items()}
    expanded = {"access": {}, "upstreams": {}, **written}  # so that validation reports what they lack
    tree = with_routes(expanded)
    found = [*reference_problems(tree)]
    try:
        context = {"folder": interpolation.folder, "environ": interpolation.environ}
        settings = Settings.model_validate(tree, context=context)
    except ValidationError as error:
        settings = None
        found += problems_of(error)
    # A reference that could not be resolved is reported once; the text in its place is not validated.
    unresolved = {problem.path for problem in interpolation.problems}
    problems += interpolation.problems
    problems += [problem for problem in found if problem.path not in unresolved]
    return settings


# --- pydantic's errors

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
    REJECTED: "{words}",
}
_WORDS_BY_KIND: Mapping[str, str] = {  # the first part of the type: int_type, int_parsing, int_from_float
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be a string",
    "path": "must be the path of a file",
    "tuple": "must be an array: put it in square brackets; the header of an array of tables has double ones, "
    "such as [[access.keys]]",
    "model": "must be a table",
    "dict": "must be a table",
}


def problems_of(error: ValidationError) -> Iterator[Problem]:
    """Translate pydantic's errors: its messages could repeat a secret, and its paths differ from the file."""
    for details in error.errors(include_url=False, include_input=False):
        yield Problem(_path_in_file(details["type"], details["loc"]), _words(details["type"], details))


def _words(kind: str, details: Mapping[str, object]) -> str:
    location, context = details["loc"], details.get("ctx")
    if kind == "extra_forbidden" and isinstance(location, tuple):
        return f"unknown key, {suggestion(str(location[-1]), _known_keys(location[:-1]))}"
    template = _WORDS.get(kind) or _WORDS_BY_KIND.get(kind.split("_")[0], "is not valid")
    words = template.format_map(context if isinstance(context, dict) else {})
    return words.replace("'", '"') if "expected" in template else words


def _path_in_file(kind: str, location: KeyPath) -> KeyPath:
    """Remove the parts that pydantic and the structure of the models add to a path."""
    parts = [part for part in location if part != "[key]"]
    if parts[:2] == ["routes", "endpoints"]:
        del parts[1]
    if parts[0] == "credentials":
        del parts[2:3]  # the source, which pydantic uses as a tag
    if kind.startswith("union_tag"):
        parts.append("source")
    return tuple(parts)


def _known_keys(location: KeyPath) -> set[str]:
    """Return the known keys of the table at a path of pydantic."""
    sections: list[type[Section]] = [Settings]
    for part in location:
        # A name chosen by the user, or an index, does not change the model.
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
