"""Sections of `[credentials]`, as they come out of the settings."""

from typing import Any

from pydantic import TypeAdapter

from proxy.settings import Credential, JwtCredential, OAuth2Credential

_ANY: TypeAdapter[Credential] = TypeAdapter(Credential)


def section(source: str, **keys: Any) -> Credential:
    """One of any source."""
    return _ANY.validate_python({"source": source, **keys})


def oauth2(url: str, **keys: Any) -> OAuth2Credential:
    """An OAuth 2.0 client."""
    checked = section("oauth2", **{"token_url": url, "client_id": "proxy", **keys})
    assert isinstance(checked, OAuth2Credential)
    return checked


def jwt(**keys: Any) -> JwtCredential:
    """A token that we sign."""
    checked = section("jwt", **keys)
    assert isinstance(checked, JwtCredential)
    return checked
