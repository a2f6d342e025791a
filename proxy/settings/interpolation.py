"""`${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}` inside the strings of the settings.

Requests to a token endpoint may also contain late references, which are resolved with each request:
`${credential:NAME}`, `${now}`, `${now_ms}` and `${uuid}`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from proxy.regular_files import open_regular
from proxy.settings.section import KeyPath, Problem

_REFERENCE = re.compile(
    r"\$(?P<escaped>\$\{)"
    r"|\$\{env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<fallback>:-(?P<default>[^}]*))?\}"
    r"|\$\{file:(?P<file>[^}]+)\}"
    r"|\$\{(?P<kind>credential|now|now_ms|uuid)(?::(?P<of>[^}]+))?\}"
    r"|(?P<malformed>\$\{)"
)
_LAST_NEWLINE = re.compile(r"\r?\n\Z")


class Interpolated(str):
    """A string that comes, wholly or in part, from the environment or a file. It is masked when shown."""

    __slots__ = ()


class LateReference(NamedTuple):
    """A reference resolved with each request: `now`, `now_ms`, `uuid` or the token of a `credential`."""

    kind: str
    name: str = ""
    """The name of the credential."""


@dataclass(frozen=True, slots=True)
class LateText:
    """A string with late references."""

    written: str
    """The text in the file."""
    parts: tuple[str | LateReference, ...] = field(repr=False)

    @property
    def credentials(self) -> Iterator[str]:
        """The names of the credentials whose tokens it contains."""
        return (part.name for part in self.parts if isinstance(part, LateReference) and part.name)


def late_texts(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, LateText]]:
    """Find the texts with late references in a tree, with their paths."""
    if isinstance(value, LateText):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from late_texts(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from late_texts(item, (*path, index))


def file_names(value: object) -> Iterator[str]:
    """Find the files that `${file:}` names in a tree."""
    if isinstance(value, str):
        yield from (reference["file"] for reference in _REFERENCE.finditer(value) if reference["file"])
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from file_names(item)
    elif isinstance(value, list):
        for item in value:
            yield from file_names(item)


LATE_KEYS = frozenset({"json", "form", "query", "headers", "basic", "params", "subject_token", "actor_token"})
"""The keys of a credential that may contain late references, because its request sends them."""


@dataclass(frozen=True)
class Interpolation:
    """Resolves the references in a tree of settings.

    Args:
        environ: The environment for `${env:}`.
        folder: The folder that a relative `${file:}` is resolved against.
        problems: Collects the references that could not be resolved; their text stays unchanged.
    """

    environ: Mapping[str, str]
    folder: Path
    problems: list[Problem] = field(default_factory=list)

    def tree(self, value: object, path: KeyPath = ()) -> object:
        """Resolve every string below `value`; a string with a reference becomes an `Interpolated`."""
        if isinstance(value, dict):
            return {key: self.tree(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.tree(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        try:
            return self._text_at(value, path)
        except ValueError as error:
            self.problems.append(Problem(path, str(error)))
            return value

    def _text_at(self, value: str, path: KeyPath) -> str | LateText:
        text = self.text(value)
        if isinstance(text, LateText) and not (
            path[0] == "credentials" and LATE_KEYS.intersection(path[2:3])
        ):
            reference = next(part for part in text.parts if isinstance(part, LateReference))
            raise ValueError(
                f"${{{reference.kind}}} is resolved only when a token is requested: use it in "
                f"{', '.join(sorted(LATE_KEYS))} of a credential"
            )
        return text

    def text(self, text: str) -> str | LateText:
        """Resolve the references in a string. The results are not scanned for further references.

        Raises:
            ValueError: A reference is malformed or cannot be resolved. The message contains no value.
        """
        parts: list[str | LateReference] = []
        end = 0
        references = [*_REFERENCE.finditer(text)]
        for reference in references:
            parts += [text[end : reference.start()], self._expand(reference)]
            end = reference.end()
        parts.append(text[end:])
        if any(isinstance(part, LateReference) for part in parts):
            return LateText(text, tuple(part for part in parts if part))
        expanded = "".join(str(part) for part in parts)
        if isinstance(text, Interpolated) or any(not reference["escaped"] for reference in references):
            return Interpolated(expanded)
        return expanded

    def _expand(self, reference: re.Match[str]) -> str | LateReference:
        if reference["escaped"]:
            return "${"
        if reference["kind"] and (reference["kind"] == "credential") == bool(reference["of"]):
            return LateReference(reference["kind"], reference["of"] or "")
        if reference["malformed"] or reference["kind"]:
            raise ValueError(
                "${...} is not a valid reference: write ${env:NAME}, ${env:NAME:-default} or ${file:PATH}, "
                "in requests for a token also ${credential:NAME}, ${now}, ${now_ms} or ${uuid}; "
                "write $${ for a literal ${"
            )
        if reference["file"]:
            return _file_text(self.folder / reference["file"])
        return self._variable(reference)

    def _variable(self, reference: re.Match[str]) -> str:
        name = reference["name"]
        value = self.environ.get(name)
        if reference["fallback"]:
            value = value or reference["default"]
        if value is None:
            raise ValueError(f"the environment variable {name} is not set and has no default")
        if not is_text(value):
            raise ValueError(f"the environment variable {name} is not valid UTF-8")
        return value


def is_text(value: str) -> bool:
    """Whether a string can be encoded; environment variables may contain undecodable bytes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_text(path: Path) -> str:
    """Read a file without its final newline."""
    try:
        with open_regular(path) as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"the file {path} is not valid UTF-8") from None
    except OSError as error:
        raise ValueError(f"the file {path} cannot be read: {error.strerror}") from None
    return _LAST_NEWLINE.sub("", text)
