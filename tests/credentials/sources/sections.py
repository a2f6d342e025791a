"""Sections of `[credentials]`, as loaded from settings."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from proxy.secret import Secret
from proxy.settings import (
    CredentialSettings,
    ExecCredential,
    Expiry,
    FileCredential,
    JwtCredential,
    OAuth2Credential,
)
from tests.pace import PATIENCE

_ANY: TypeAdapter[CredentialSettings] = TypeAdapter(CredentialSettings)


def section(source: str, **keys: Any) -> CredentialSettings:
    """Return a section of any source."""
    return _ANY.validate_python({"source": source, **keys})


def oauth2(url: str, **keys: Any) -> OAuth2Credential:
    """Return the section of an OAuth 2.0 client."""
    patient = {"timeout": PATIENCE, "connect_timeout": PATIENCE}
    checked = section("oauth2", **{"token_url": url, "client_id": "proxy", **patient, **keys})
    assert isinstance(checked, OAuth2Credential)
    return checked


def jwt(**keys: Any) -> JwtCredential:
    """Return a section for tokens that we sign."""
    checked = section("jwt", **keys)
    assert isinstance(checked, JwtCredential)
    return checked


def token_file(path: Path, *, expires: Iterable[tuple[str, str]] = (), **keys: Any) -> FileCredential:
    """Return a section for a token file, which need not exist."""
    return FileCredential.model_construct(source="file", path=path, expires=_places(expires), **keys)


def command(*words: str | Secret, expires: Iterable[tuple[str, str]] = (), **keys: Any) -> ExecCredential:
    """Return a section for a command, which need not exist, with an empty environment."""
    given = {"timeout": PATIENCE, **keys}
    return ExecCredential.model_construct(source="exec", command=words, expires=_places(expires), **given)


def _places(expires: Iterable[tuple[str, str]]) -> tuple[Expiry, ...]:
    return tuple(Expiry.model_validate({"path": path, "as": unit}) for path, unit in expires)
