"""`source = "static"`, `"file"` and `"exec"`: tokens that come from this machine."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from proxy.secret import Secret
from proxy.settings.credentials.http import Expiry
from proxy.settings.credentials.section import CredentialSection, environ_of
from proxy.settings.fields import DottedPath, KeyText, PositiveSeconds, ReadableFile, matching
from proxy.settings.interpolation import Interpolated
from proxy.settings.section import (
    Checked,
    Choice,
    Table,
    frozen,
    problems_of_choices,
    reject,
    reject_all,
    reject_together,
)

INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ")
_HINTS: Final = {"token": ': the path of the token in the JSON, such as "data.token"'}


class StaticCredential(CredentialSection):
    """A token that does not expire."""

    source: Literal["static"]
    value: KeyText | None = None
    """The token itself, or:"""
    file: ReadableFile | None = None
    """a file that contains nothing but the token; read again every minute."""

    @model_validator(mode="after")
    def _has_one_place(self) -> Self:
        missing = "is required: the token itself, or file with the path of a file that contains it"
        reject_together({"value": self.value, "file": self.file}, missing)
        return self


class FileCredential(CredentialSection):
    """A file that contains the token, alone or in JSON. The `exp` of a JWT is its expiry."""

    source: Literal["file"]
    path: ReadableFile
    format: Literal["auto", "text", "json"] = "auto"
    """`auto`: JSON if `token` is set, otherwise text."""
    token: DottedPath | None = None
    """The path of the token in the JSON."""
    expires: tuple[Expiry, ...] = ()
    """Where the JSON holds the expiry, tried in order; durations count from the file's modification time."""
    max_age: Annotated[PositiveSeconds, Field(ge=3, le=60)] = 60
    """How long a token is used before the file is read again."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        reject_all(problems_of_choices(self, _FILE_CHOICES, _HINTS))
        _reject_expires_without_token(self)
        return self


_FILE_CHOICES: Final = (
    Choice("format", "auto", (), ("token",)),
    Choice("format", "json", ("token",)),
)
_EXEC_CHOICES: Final = (
    Choice("format", "auto", (), ("token", "expires")),
    Choice("format", "json", ("token",), ("expires",)),
    Choice("format", "credential_process", (), ("token", "expires")),
)


def _reject_expires_without_token(section: "FileCredential | ExecCredential") -> None:
    if section.expires and section.token is None and section.format == "auto":
        reject("requires token as well: both are paths in JSON", "expires")


# --- commands


def _argument(value: object) -> str | Secret:
    """Accept any string without a NUL, which would end it; an `Interpolated` becomes a secret."""
    text = value.reveal() if isinstance(value, Secret) else value
    if not isinstance(text, str):
        reject("must be a string")
    if "\0" in text:
        reject("must not contain a NUL character")
    return Secret(str(text)) if isinstance(value, Secret | Interpolated) else text


def _folder(path: Path, info: ValidationInfo) -> Path:
    located = _settings_folder(info) / path
    if "\0" in str(path) or not located.is_dir():
        reject("is not a folder")
    return located


def _settings_folder(info: ValidationInfo) -> Path:
    """Return the folder of the settings file (validation context `folder`)."""
    folder: Path = (info.context or {}).get("folder", Path())
    return folder.absolute()


def _located(program: str, info: ValidationInfo) -> str:
    """Return the absolute path of a program, because the command may start in another folder."""
    if not program:
        reject("must name a program first", 0)
    if "/" in program:
        found = shutil.which(_settings_folder(info) / program)
        if found is None:
            reject("is not a program that can be run: it does not exist or is not executable", 0)
    else:
        found = shutil.which(program, path=environ_of(info).get("PATH", os.defpath))
        if found is None:
            reject("was not found on PATH: give its path, or install it", 0)
    return str(Path(found).absolute())


Argument = Annotated[str | Secret, Checked(_argument)]
VariableName = Annotated[str, matching(r"[^=\0]+", "must be the name of an environment variable")]
Folder = Annotated[Path, AfterValidator(_folder)]


class ExecCredential(CredentialSection):
    """A command that prints a token, such as a credential helper. It is never run through a shell."""

    source: Literal["exec"]
    command: tuple[Argument, ...]
    """The program and its arguments."""
    env: Table[VariableName, Argument] = Field(default_factory=dict)
    """Environment variables to set for the command."""
    inherit: tuple[VariableName, ...] = INHERITED
    """The only variables of the service's environment that the command can see."""
    cwd: Folder = Path()
    """The working directory; by default the folder of the settings file."""
    format: Literal["auto", "exec_credential", "credential_process", "git", "json", "text"] = "auto"
    """The format of the output; `auto` detects it."""
    token: DottedPath | None = None
    """The path of the token in JSON; `SessionToken` by default for a `credential_process`."""
    expires: tuple[Expiry, ...] = ()
    """Where the JSON holds the token's lifetime, tried in order."""
    _inherited: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def environment(self) -> Mapping[str, str | Secret]:
        """All environment variables of the command."""
        return {**self._inherited, **self.env}

    @property
    def inherited_choices(self) -> Mapping[str, str | Path]:
        """The inherited variables that may decide which token the command prints, such as `AWS_PROFILE`."""
        return {name: value for name, value in self._inherited.items() if name not in INHERITED}

    @field_validator("command")
    @classmethod
    def _can_be_run(cls, command: tuple[str | Secret, ...], info: ValidationInfo) -> tuple[str | Secret, ...]:
        if not command:
            reject("must name a program")
        program, *arguments = command
        name = program.reveal() if isinstance(program, Secret) else program
        return (_located(name, info), *arguments)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        reject_all(problems_of_choices(self, _EXEC_CHOICES, _HINTS))
        _reject_expires_without_token(self)
        return self

    @model_validator(mode="after")
    def _read_inherited_variables(self, info: ValidationInfo) -> Self:
        environ = environ_of(info)
        self._inherited = frozen({name: environ[name] for name in self.inherit if name in environ})
        return self
