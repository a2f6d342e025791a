"""`[credentials.NAME]`: where the token for an upstream comes from, one module a source."""

from typing import Annotated, TypeAlias

from pydantic import Discriminator

from proxy.settings.credentials.azure import AzureCredential
from proxy.settings.credentials.bedrock import BedrockCredential
from proxy.settings.credentials.exec import ExecCredential
from proxy.settings.credentials.file import FileCredential
from proxy.settings.credentials.google import GoogleCredential
from proxy.settings.credentials.http import Expiry, HttpCredential, Success
from proxy.settings.credentials.jwt import JwtCredential
from proxy.settings.credentials.oauth2 import OAuth2Credential
from proxy.settings.credentials.section import CredentialSection, Inject, Invalidation
from proxy.settings.credentials.static import StaticCredential

Credential: TypeAlias = Annotated[
    StaticCredential
    | FileCredential
    | ExecCredential
    | OAuth2Credential
    | JwtCredential
    | AzureCredential
    | GoogleCredential
    | BedrockCredential
    | HttpCredential,
    Discriminator("source"),
]

__all__ = [
    "AzureCredential",
    "BedrockCredential",
    "Credential",
    "CredentialSection",
    "ExecCredential",
    "Expiry",
    "FileCredential",
    "GoogleCredential",
    "HttpCredential",
    "Inject",
    "Invalidation",
    "JwtCredential",
    "OAuth2Credential",
    "StaticCredential",
    "Success",
]
