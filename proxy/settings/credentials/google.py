"""`source = "google"`: an access or ID token of Google, for a service account or a federated identity."""

import json
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, model_validator

from proxy.settings.credentials.cloud import IssuerSection
from proxy.settings.fields import Name, ReadableFile
from proxy.settings.section import refuse

_KINDS = ("service_account", "external_account")


def _scopes(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        refuse("is empty: name one scope at least")
    return value


def _key_file(path: Path) -> Path:
    if _kind(path) not in _KINDS:
        refuse("must be the JSON file of a service account or of an external account")
    return path


def _kind(path: Path) -> object:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content.get("type") if isinstance(content, dict) else None


class GoogleCredential(IssuerSection):
    """Who asks, and for what."""

    package: ClassVar[str] = "google-auth"
    modules: ClassVar[tuple[str, ...]] = ("google.auth", "requests")

    source: Literal["google"]
    scopes: Annotated[tuple[Name, ...], AfterValidator(_scopes)] = (
        "https://www.googleapis.com/auth/cloud-platform",
    )
    file: Annotated[ReadableFile, AfterValidator(_key_file)] | None = None
    """JSON file of a service account or an external account; else the application default credentials."""
    audience: Name | None = None
    """Ask for an ID token for this audience instead of an access token."""
    subject: Name | None = None
    """The user in whose name a service account acts (domain-wide delegation)."""

    @model_validator(mode="after")
    def _asks_for_what_the_file_can_give(self) -> Self:
        if self.audience is not None and "scopes" in self.model_fields_set:
            refuse("stands beside scopes: an ID token has none", "audience")
        if self.audience is not None and self.subject is not None:
            refuse("stands beside audience: give one of the two", "subject")
        if self.subject is not None and self.file is None:
            refuse("needs file beside it, that of a service account", "subject")
        for key in ("audience", "subject"):
            if getattr(self, key) is not None and self.file and _kind(self.file) != "service_account":
                refuse("needs the file of a service account", key)
        return self
