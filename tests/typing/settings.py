"""Settings are loaded from a file and an environment, are typed, and cannot be changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, assert_type

from proxy.secret import Secret
from proxy.settings import (
    Chat,
    CredentialSettings,
    HttpCredential,
    Settings,
    Timeouts,
    Upstream,
    load_settings,
)


def load(environ: Mapping[str, str]) -> None:
    settings = load_settings(Path("proxy.toml"), environ)
    assert_type(settings, Settings)
    assert_type(settings.upstreams["chat"], Upstream)
    assert_type(settings.upstreams["chat"].timeouts, Timeouts)
    assert_type(settings.upstreams["chat"].timeouts.first_byte, float)
    assert_type(settings.chat, Chat | None)
    load_settings("proxy.toml", environ)  # type: ignore[arg-type]


def are_immutable(settings: Settings, upstream: Upstream) -> None:
    settings.chat = None  # type: ignore[misc]
    upstream.base_url = "https://llm.example/v1"  # type: ignore[misc]
    settings.upstreams["chat"] = upstream  # type: ignore[index]


def sections_are_told_apart(credential: CredentialSettings) -> None:
    if isinstance(credential, HttpCredential):
        assert_type(credential.url, str)
        assert_type(credential.method, Literal["GET", "POST", "PUT", "PATCH"])
    if credential.source == "oauth2":
        assert_type(credential.client_secret, Secret | None)
