"""`source = "exec"`: a token that a command writes, as credential helpers do."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from proxy.secret import Secret
from proxy.settings.credentials.http import Expiry
from proxy.settings.credentials.section import CredentialSection
from proxy.settings.fields import DottedPath
from proxy.settings.interpolation import Interpolated
from proxy.settings.section import Checked, Table, frozen, refuse

INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ")
_VARIABLE = re.compile(r"[^=\0]+")


def _argument(value: object) -> str | Secret:
    """Accept any string without NUL, which would end it; an `Interpolated` becomes a secret."""
    text = value.reveal() if isinstance(value, Secret) else value
    if not isinstance(text, str):
        refuse("must be a string")
    if "\0" in text:
        refuse("must not contain a NUL character")
    return Secret(str(text)) if isinstance(value, Secret | Interpolated) else text


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        refuse("must be the name of an environment variable")
    return name


def _folder(path: Path, info: ValidationInfo) -> Path:
    located = _start(info) / path
    if "\0" in str(path) or not located.is_dir():
        refuse("is not a folder")
    return located


def _start(info: ValidationInfo) -> Path:
    """The folder of the settings file (validation context `folder`)."""
    folder: Path = (info.context or {}).get("folder", Path())
    return folder.absolute()


def _environ(info: ValidationInfo) -> Mapping[str, str]:
    """The environment of the service (validation context `environ`)."""
    environ: Mapping[str, str] = (info.context or {}).get("environ", {})
    return environ


def _located(program: str, info: ValidationInfo) -> str:
    """The absolute path of a program; the command may start in another folder."""
    if not program:
        refuse("must name a program first", 0)
    if "/" in program:
        found = shutil.which(_start(info) / program)
        if found is None:
            refuse("is not a program that can be run: there is none, or it is not executable", 0)
    else:
        found = shutil.which(program, path=_environ(info).get("PATH", os.defpath))
        if found is None:
            refuse("is not found on PATH: give its path, or install it", 0)
    return str(Path(found).absolute())


Argument = Annotated[str | Secret, Checked(_argument)]
VariableName = Annotated[str, AfterValidator(_variable)]
Folder = Annotated[Path, AfterValidator(_folder)]


class ExecCredential(CredentialSection):
    """A command that is run anew for each token, never through a shell."""

    source: Literal["exec"]
    command: tuple[Argument, ...]
    """The program and its arguments."""
    env: Table[VariableName, Argument] = Field(default_factory=dict)
    """Environment variables of the command's own."""
    inherit: tuple[VariableName, ...] = INHERITED
    """The variables of the service that it sees; all others it does not."""
    cwd: Folder = Path()
    """Where it starts: the settings file's folder where nothing is said."""
    format: Literal["auto", "exec_credential", "credential_process", "git", "json", "text"] = "auto"
    """What it writes; `auto` is as it looks."""
    token: DottedPath | None = None
    """Where the token stands in JSON; of a `credential_process` that is `SessionToken` by default."""
    expires: tuple[Expiry, ...] = ()
    """Where the JSON tells the token's life, tried in order."""
    _inherited: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def environment(self) -> Mapping[str, str | Secret]:
        """All environment variables of the command."""
        return {**self._inherited, **self.env}

    @field_validator("command")
    @classmethod
    def _can_be_run(cls, command: tuple[str | Secret, ...], info: ValidationInfo) -> tuple[str | Secret, ...]:
        if not command:
            refuse("must name a program")
        program, *arguments = command
        name = program.reveal() if isinstance(program, Secret) else program
        return (_located(name, info), *arguments)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.format == "json" and self.token is None:
            refuse('is required: the path of the token in the JSON, such as "data.token"', "token")
        if self.format in {"exec_credential", "git", "text"}:
            for key in ("token", "expires"):
                if getattr(self, key):
                    refuse(f'has no meaning with format = "{self.format}"', key)
        if self.expires and self.format == "auto" and self.token is None:
            refuse("needs token beside it: only JSON has such places", "expires")
        return self

    @model_validator(mode="after")
    def _takes_its_inheritance(self, info: ValidationInfo) -> Self:
        environ = _environ(info)
        self._inherited = frozen({name: environ[name] for name in self.inherit if name in environ})
        return self
