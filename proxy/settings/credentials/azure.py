"""`source = "azure"`: a token of Microsoft Entra ID, by any way in which a program shows who it is."""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, model_validator

from proxy.settings.credentials.cloud import IssuerSection
from proxy.settings.fields import Name, ReadableFile, SecretText
from proxy.settings.section import refuse

_SCOPE = re.compile(r"[A-Za-z0-9._:/-]+")
_TENANT = re.compile(r"[A-Za-z0-9.-]+")


class _Keys(NamedTuple):
    """The keys that a method takes."""

    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


_KEYS: Mapping[str, _Keys] = {
    "default": _Keys(optional=("tenant_id", "client_id", "authority")),
    "client_secret": _Keys(("tenant_id", "client_id", "client_secret"), ("authority",)),
    "certificate": _Keys(
        ("tenant_id", "client_id", "certificate_file"), ("certificate_password", "authority")
    ),
    "workload_identity": _Keys(("tenant_id", "client_id", "token_file"), ("authority",)),
    "managed_identity": _Keys(optional=("client_id",)),
    "cli": _Keys(optional=("tenant_id",)),
}
_OF_SOME_METHODS = {key: None for keys in _KEYS.values() for key in (*keys.needed, *keys.optional)}
_EXAMPLES = {
    "tenant_id": ', such as "${env:AZURE_TENANT_ID}"',
    "client_id": ', such as "${env:AZURE_CLIENT_ID}"',
    "token_file": ', such as "${env:AZURE_FEDERATED_TOKEN_FILE}"',
}


def _scope(value: str) -> str:
    if not _SCOPE.fullmatch(value):
        refuse('must be one scope, such as "https://cognitiveservices.azure.com/.default"')
    return value


def _tenant(value: str) -> str:
    if not _TENANT.fullmatch(value):
        refuse("must be the id or a domain of a tenant: letters, digits, dots and hyphens")
    return value


def _authority(value: str) -> str:
    """A host, or its https URL: the SDK takes both and nothing else."""
    try:
        parts = urlsplit(value if "://" in value else f"https://{value}")
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme != "https" or "@" in parts.netloc or parts.query or parts.fragment:
        refuse('must be a host or its https:// URL, such as "login.microsoftonline.us"')
    return value


class AzureCredential(IssuerSection):
    """One scope, and the method by which the token for it is asked."""

    package: ClassVar[str] = "azure-identity"
    modules: ClassVar[tuple[str, ...]] = ("azure.identity", "aiohttp")

    source: Literal["azure"]
    scope: Annotated[Name, AfterValidator(_scope)]
    """What the token is for, such as `https://cognitiveservices.azure.com/.default`."""
    method: Literal[
        "default", "client_secret", "certificate", "workload_identity", "managed_identity", "cli"
    ] = "default"
    """`default` tries one after the other what the environment offers."""
    tenant_id: Annotated[Name, AfterValidator(_tenant)] | None = None
    client_id: Name | None = None
    """The application's id; with `managed_identity` that of a user-assigned identity."""
    client_secret: SecretText | None = None
    certificate_file: ReadableFile | None = None
    """PEM or PKCS #12 file with the certificate and its RSA key."""
    certificate_password: SecretText | None = None
    token_file: ReadableFile | None = None
    """With `workload_identity`: the file of the token that Kubernetes gives and renews."""
    authority: Annotated[Name, AfterValidator(_authority)] | None = None
    """Another cloud's login host; the public one by default."""

    @model_validator(mode="after")
    def _has_what_its_method_needs(self) -> Self:
        keys = _KEYS[self.method]
        for key in _OF_SOME_METHODS:
            given = getattr(self, key) is not None
            if key in keys.needed and not given:
                refuse(f'is required for method = "{self.method}"{_EXAMPLES.get(key, "")}', key)
            if given and key not in keys.needed and key not in keys.optional:
                refuse(f'is of no use to method = "{self.method}"', key)
        return self
