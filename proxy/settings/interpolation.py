"""`${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}` inside the strings of the settings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from proxy.settings.locations import KeyPath
from proxy.settings.problems import Problem

_REFERENCE = re.compile(
    r"\$(?P<escaped>\$\{)"
    r"|\$\{env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<fallback>:-(?P<default>[^}]*))?\}"
    r"|\$\{file:(?P<file>[^}]+)\}"
    r"|(?P<malformed>\$\{)"
)
_LAST_NEWLINE = re.compile(r"\r?\n\Z")


class Interpolated(str):
    """A string that came, wholly or in part, from the environment or a file: masked when shown."""

    __slots__ = ()


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
            return self.text(value)
        except ValueError as error:
            self.problems.append(Problem(path, str(error)))
            return value

    def text(self, text: str) -> str:
        """Expand one string. What a reference yields is not looked at again.

        Raises:
            ValueError: A reference is malformed or leads nowhere; its words hold no value.
        """
        expanded = _REFERENCE.sub(self._expand, text)
        if isinstance(text, Interpolated) or any(not match["escaped"] for match in _REFERENCE.finditer(text)):
            return Interpolated(expanded)
        return expanded

    def _expand(self, reference: re.Match[str]) -> str:
        if reference["escaped"]:
            return "${"
        if reference["malformed"]:
            raise ValueError(
                "${...} is not understood: write ${env:NAME}, ${env:NAME:-default} or ${file:PATH}, "
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
