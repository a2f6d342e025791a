"""Settings: a TOML file with the environment laid over it, checked once at start and immutable after.

    load_settings    file + environment -> Settings, or SettingsError: every problem with key, file and line
    resolve_embedded `embedded:` URLs -> those of the running demonstration gateway
    describe         Settings -> text to show, secrets masked

The way of the text: locations (lines) -> environment (overrides) -> interpolation (`${env:}`) -> references
(names across sections) -> models (types, ranges) -> translation (pydantic's errors in our words).
"""

from proxy.settings.access import ANY_MODEL, DEFAULT_CALLER_KEYS, Access, CallerKey
from proxy.settings.chat import Chat
from proxy.settings.cors import Cors
from proxy.settings.credentials import (
    AzureCredential,
    BedrockCredential,
    Credential,
    CredentialSection,
    ExecCredential,
    Expiry,
    FileCredential,
    GoogleCredential,
    HttpCredential,
    Inject,
    Invalidation,
    JwtCredential,
    OAuth2Credential,
    StaticCredential,
    Success,
)
from proxy.settings.describe import describe
from proxy.settings.load import load_settings
from proxy.settings.model_list import KnownModel, Models
from proxy.settings.models import (
    Gateway,
    Limits,
    Logs,
    ModelRoute,
    Routes,
    Settings,
    resolve_embedded,
)
from proxy.settings.recipe_values import Json
from proxy.settings.shared import Shared
from proxy.settings.upstreams import Breaker, Retries, Timeouts, Upstream
from proxy.settings.urls import EMBEDDED

__all__ = [
    "ANY_MODEL",
    "DEFAULT_CALLER_KEYS",
    "EMBEDDED",
    "Access",
    "AzureCredential",
    "BedrockCredential",
    "Breaker",
    "CallerKey",
    "Chat",
    "Cors",
    "Credential",
    "CredentialSection",
    "ExecCredential",
    "Expiry",
    "FileCredential",
    "Gateway",
    "GoogleCredential",
    "HttpCredential",
    "Inject",
    "Invalidation",
    "Json",
    "JwtCredential",
    "KnownModel",
    "Limits",
    "Logs",
    "ModelRoute",
    "Models",
    "OAuth2Credential",
    "Retries",
    "Routes",
    "Settings",
    "Shared",
    "StaticCredential",
    "Success",
    "Timeouts",
    "Upstream",
    "describe",
    "load_settings",
    "resolve_embedded",
]
