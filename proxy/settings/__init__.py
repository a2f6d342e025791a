"""Settings: a TOML file overridden by the environment, validated at start and immutable from then on.

    load_settings      reads file and environment; SettingsError lists every problem with key, file and line
    resolve_embedded   replaces `embedded:` URLs by those of the running demonstration gateway
    describe           prints the settings with secrets masked; mask_url does so for one URL

How a text becomes settings: locations (lines) -> environment (overrides) -> interpolation (`${env:}`) ->
references (names across sections) -> sections (types, ranges) -> load (pydantic's errors in our words).
"""

from proxy.settings.access import ANY_MODEL, DEFAULT_CALLER_KEYS, Access, CallerKey, Cors
from proxy.settings.chat import Chat
from proxy.settings.credentials import CredentialSettings
from proxy.settings.credentials.cloud import AzureCredential, BedrockCredential, GoogleCredential
from proxy.settings.credentials.http import Expiry, HttpCredential, Success
from proxy.settings.credentials.jwt import JwtCredential
from proxy.settings.credentials.local import ExecCredential, FileCredential, StaticCredential
from proxy.settings.credentials.oauth2 import OAuth2Credential
from proxy.settings.credentials.section import CredentialSection, Inject, Invalidation
from proxy.settings.describe import describe, mask_url
from proxy.settings.fields import EMBEDDED
from proxy.settings.load import load_settings, referenced_files
from proxy.settings.recipe_values import Json
from proxy.settings.sections import (
    Breaker,
    Gateway,
    KnownModel,
    Limits,
    Logs,
    ModelRoute,
    Models,
    Offload,
    Retries,
    Routes,
    Settings,
    Timeouts,
    Traces,
    Upstream,
    resolve_embedded,
)
from proxy.settings.shared import Shared
from proxy.settings.status import StatusPage

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
    "CredentialSection",
    "CredentialSettings",
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
    "Offload",
    "Retries",
    "Routes",
    "Settings",
    "Shared",
    "StaticCredential",
    "StatusPage",
    "Success",
    "Timeouts",
    "Traces",
    "Upstream",
    "describe",
    "load_settings",
    "mask_url",
    "referenced_files",
    "resolve_embedded",
]
