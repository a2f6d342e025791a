"""`[credentials.NAME]`: where the token for an upstream comes from, with one section class per source."""

from typing import Annotated, TypeAlias

from pydantic import Discriminator

from proxy.settings.credentials.cloud import AzureCredential, BedrockCredential, GoogleCredential
from proxy.settings.credentials.http import HttpCredential
from proxy.settings.credentials.jwt import JwtCredential
from proxy.settings.credentials.local import ExecCredential, FileCredential, StaticCredential
from proxy.settings.credentials.oauth2 import OAuth2Credential

CredentialSettings: TypeAlias = Annotated[
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
