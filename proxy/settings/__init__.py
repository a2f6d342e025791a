"""Settings: a TOML file with the environment laid over it, checked once at start and immutable after.

    load_settings    file + environment -> Settings, or SettingsError: every problem with key, file and line
    resolve_embedded `embedded:` URLs -> those of the running demonstration gateway
    describe         Settings -> text to show, secrets masked

The way of the text: locations (lines) -> environment (overrides) -> interpolation (`${env:}`) -> references
(names across sections) -> models (types, ranges) -> translation (pydantic's errors in our words).
"""

from proxy.settings.access import DEFAULT_CALLER_KEYS, Access, CallerKey
from proxy.settings.credentials import (
    Credential,
    CredentialSection,
    Expiry,
    HttpCredential,
    Inject,
    OAuth2Credential,
    StaticCredential,
    Success,
)
from proxy.settings.describe import describe
from proxy.settings.load import load_settings
from proxy.settings.models import ENDPOINTS, Gateway, Limits, Logs, Routes, Settings, resolve_embedded
from proxy.settings.recipe_values import Json
from proxy.settings.upstreams import Timeouts, Upstream

__all__ = [
    "DEFAULT_CALLER_KEYS",
    "ENDPOINTS",
    "Access",
    "CallerKey",
    "Credential",
    "CredentialSection",
    "Expiry",
    "Gateway",
    "HttpCredential",
    "Inject",
    "Json",
    "Limits",
    "Logs",
    "OAuth2Credential",
    "Routes",
    "Settings",
    "StaticCredential",
    "Success",
    "Timeouts",
    "Upstream",
    "describe",
    "load_settings",
    "resolve_embedded",
]
