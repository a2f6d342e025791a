"""`${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}` inside the strings of the settings.

What a request to a token endpoint sends may also hold `${credential:NAME}`, `${now}`, `${now_ms}` and
`${uuid}`, which have a value only when it is sent.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from proxy.settings.locations import KeyPath
from proxy.settings.problems import Problem

_REFERENCE = re.compile(
    r"\$(?P<escaped>\$\{)"
    r"|\$\{env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<fallback>:-(?P<default>[^}]*))?\}"
    r"|\$\{file:(?P<file>[^}]+)\}"
    r"|\$\{(?P<kind>credential|now|now_ms|uuid)(?::(?P<of>[^}]+))?\}"
    r"|(?P<malformed>\$\{)"
)
_LAST_NEWLINE = re.compile(r"\r?\n\Z")


class Interpolated(str):
    """A string that came, wholly or in part, from the environment or a file: masked when shown."""

    __slots__ = ()


class LateReference(NamedTuple):
    """What has a value only when a request is written: the epoch in `now` or `now_ms`, a `uuid`, a token."""

    kind: str
    name: str = ""
    """Of a `credential`."""


@dataclass(frozen=True, slots=True)
class LateText:
    """A string that is finished when the request is written."""

    written: str
    """As it stands in the file, with its references: fit to be shown."""
    parts: tuple[str | LateReference, ...] = field(repr=False)

    @property
    def credentials(self) -> Iterator[str]:
        """The names of the credentials whose tokens it holds."""
        return (part.name for part in self.parts if isinstance(part, LateReference) and part.name)


LATE_KEYS = frozenset({"json", "form", "query", "headers", "basic", "params", "subject_token", "actor_token"})
"""The keys of a credential that may hold late references: what its request sends."""


@dataclass(frozen=True)
class Interpolation:
    """Expands the strings of a tree of settings.

    Args:
        environ: Where `${env:}` looks.
        folder: What a relative `${file:}` starts from.
        problems: Filled with what could not be expanded; the text then stays as it was written.
    """

    environ: Mapping[str, str]
    folder: Path
    problems: list[Problem] = field(default_factory=list)

    def tree(self, value: object, path: KeyPath = ()) -> object:
        """Expand every string below `value`; a string with a reference comes back as `Interpolated`."""
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
                f"${{{reference.kind}}} has a value only when a token is asked for: it can stand in "
                f"{', '.join(sorted(LATE_KEYS))} of a credential"
            )
        return text

    def text(self, text: str) -> str | LateText:
        """Expand one string. What a reference yields is not looked at again.

        Raises:
            ValueError: A reference is malformed or leads nowhere; its words hold no value.
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
                "${...} is not understood: write ${env:NAME}, ${env:NAME:-default} or ${file:PATH}, "
                "in requests for a token also ${credential:NAME}, ${now}, ${now_ms} or ${uuid}, "
                "and $${ for a plain ${"
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
            raise ValueError(f"the environment variable {name} is not set, and no default is given")
        if not is_text(value):
            raise ValueError(f"the environment variable {name} is not valid UTF-8")
        return value


def is_text(value: str) -> bool:
    """Say whether a string can be encoded; one of the environment may hold undecodable bytes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_text(path: Path) -> str:
    """Read a file, without its last newline."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"the file {path} is not valid UTF-8") from None
    except OSError as error:
        raise ValueError(f"the file {path} cannot be read: {error.strerror}") from None
    return _LAST_NEWLINE.sub("", text)
