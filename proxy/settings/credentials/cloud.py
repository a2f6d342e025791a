"""`source = "azure"`, `"google"` and `"bedrock"`: tokens from the clouds' own SDKs."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from proxy.settings.credentials.section import CredentialSection, environ_of
from proxy.settings.fields import CaFile, Count, Name, ProxyUrl, ReadableFile, SecretText, matching
from proxy.settings.section import Choice, frozen, problems_of_choices, reject, reject_all, reject_together
from proxy.shipped import install_command


class CloudSection(CredentialSection):
    """A source that needs an SDK, which is an extra of the distribution with the source's name."""

    package: ClassVar[str]
    """The distribution that contains the SDK."""
    modules: ClassVar[tuple[str, ...]]
    """The modules that must be installed."""
    choices: ClassVar[tuple[str, ...]]
    """The variables of the environment by which the SDK chooses an identity; none that differs for each
    instance of one identity."""
    key_files: ClassVar[tuple[str, ...]] = ()
    """Those that name a key file."""
    _chosen: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def inherited_choices(self) -> Mapping[str, str | Path]:
        """The variables by which the SDK chooses an identity, such as `AWS_PROFILE`."""
        return {
            name: Path(value) if name in self.key_files else value for name, value in self._chosen.items()
        }

    @model_validator(mode="after")
    def _read_choices(self, info: ValidationInfo) -> Self:
        environ = environ_of(info)
        self._chosen = frozen({name: environ[name] for name in self.choices if name in environ})
        return self

    @field_validator("source")
    @classmethod
    def _has_its_sdk(cls, source: str) -> str:
        if not all(_is_installed(module) for module in cls.modules):
            reject(f"{source} needs the package {cls.package}: {install_command(source)}")
        return source


_AWS_CHOICES: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CONFIG_FILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
"""Accounts of Google may be federated with those of AWS."""


class IssuerSection(CloudSection):
    """A source whose SDK sends requests to an issuer."""

    ca_file: CaFile | None = None
    """PEM certificates to trust for the issuer instead of the system's."""
    proxy: ProxyUrl | None = None
    """The HTTP proxy for https:// issuers. Identity endpoints on the host are connected to directly."""
    trust_env: bool = False
    """Use the proxies that the environment names (HTTPS_PROXY, NO_PROXY). Otherwise those variables are also
    hidden from commands that the SDK runs."""


def _is_installed(module: str) -> bool:
    """Whether a module can be found. Only its parent packages are imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


# --- Azure

_APPLICATION: Final = ("tenant_id", "client_id")
_METHODS: Final = (
    Choice("method", "default", (), (*_APPLICATION, "authority")),
    Choice("method", "client_secret", (*_APPLICATION, "client_secret"), ("authority",)),
    Choice(
        "method", "certificate", (*_APPLICATION, "certificate_file"), ("certificate_password", "authority")
    ),
    Choice("method", "workload_identity", (*_APPLICATION, "token_file"), ("authority",)),
    Choice("method", "managed_identity", (), ("client_id",)),
    Choice("method", "cli", (), ("tenant_id",)),
)
_HINTS: Final = {
    "tenant_id": ', such as "${env:AZURE_TENANT_ID}"',
    "client_id": ', such as "${env:AZURE_CLIENT_ID}"',
    "token_file": ', such as "${env:AZURE_FEDERATED_TOKEN_FILE}"',
}


def _authority(value: str) -> str:
    """Accept a host or its https URL; the SDK takes nothing else."""
    try:
        parts = urlsplit(value if "://" in value else f"https://{value}")
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme != "https" or "@" in parts.netloc or parts.query or parts.fragment:
        reject('must be a host or its https:// URL, such as "login.microsoftonline.us"')
    return value


class AzureCredential(IssuerSection):
    """A token of Microsoft Entra ID."""

    package: ClassVar[str] = "azure-identity"
    modules: ClassVar[tuple[str, ...]] = ("azure.identity", "aiohttp")
    choices: ClassVar[tuple[str, ...]] = (
        "AZURE_AUTHORITY_HOST",
        "AZURE_CLIENT_ID",
        "AZURE_CONFIG_DIR",
        "AZURE_TENANT_ID",
        "AZURE_TOKEN_CREDENTIALS",
        "AZURE_USERNAME",
    )

    source: Literal["azure"]
    scope: Annotated[
        str,
        matching(
            r"[A-Za-z0-9._:/-]+", 'must be one scope, such as "https://cognitiveservices.azure.com/.default"'
        ),
    ]
    """What the token is for, such as `https://cognitiveservices.azure.com/.default`."""
    method: Literal[
        "default", "client_secret", "certificate", "workload_identity", "managed_identity", "cli"
    ] = "default"
    """How to authenticate; `default` tries everything that the environment offers, in order."""
    tenant_id: (
        Annotated[
            str,
            matching(
                r"[A-Za-z0-9.-]+",
                "must be the id or a domain of a tenant: letters, digits, dots and hyphens",
            ),
        ]
        | None
    ) = None
    client_id: Name | None = None
    """The id of the application; with `managed_identity`, that of a user-assigned identity."""
    client_secret: SecretText | None = None
    certificate_file: ReadableFile | None = None
    """PEM or PKCS #12 file with the certificate and its RSA key."""
    certificate_password: SecretText | None = None
    token_file: ReadableFile | None = None
    """The file, for `workload_identity`, with the token that Kubernetes issues and refreshes."""
    authority: Annotated[Name, AfterValidator(_authority)] | None = None
    """The login host of another cloud; by default the public one."""

    @model_validator(mode="after")
    def _has_the_keys_of_its_method(self) -> Self:
        reject_all(problems_of_choices(self, _METHODS, _HINTS))
        return self


# --- Google

_SERVICE_ACCOUNT: Final = "service_account"
_GOOGLE_KEY: Final = "GOOGLE_APPLICATION_CREDENTIALS"


def _scopes(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        reject("is empty: name at least one scope")
    return value


def _key_file(path: Path) -> Path:
    if _kind_of_key(path) not in {_SERVICE_ACCOUNT, "external_account"}:
        reject("must be the JSON file of a service account or of an external account")
    return path


def _kind_of_key(path: Path) -> object:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content.get("type") if isinstance(content, dict) else None


class GoogleCredential(IssuerSection):
    """An access token or ID token of Google, for a service account or a federated identity."""

    package: ClassVar[str] = "google-auth"
    modules: ClassVar[tuple[str, ...]] = ("google.auth", "requests")
    choices: ClassVar[tuple[str, ...]] = (_GOOGLE_KEY, "CLOUDSDK_CONFIG", *_AWS_CHOICES)
    key_files: ClassVar[tuple[str, ...]] = (_GOOGLE_KEY,)

    source: Literal["google"]
    scopes: Annotated[tuple[Name, ...], AfterValidator(_scopes)] = (
        "https://www.googleapis.com/auth/cloud-platform",
    )
    file: Annotated[ReadableFile, AfterValidator(_key_file)] | None = None
    """JSON file of a service account or an external account; by default the application's credentials."""
    audience: Name | None = None
    """Request an ID token for this audience instead of an access token."""
    subject: Name | None = None
    """The user whom a service account impersonates (domain-wide delegation)."""

    @model_validator(mode="after")
    def _fits_its_file(self) -> Self:
        if self.audience is not None and "scopes" in self.model_fields_set:
            reject("cannot be combined with scopes: an ID token has none", "audience")
        reject_together({"audience": self.audience, "subject": self.subject})
        if self.subject is not None and self.file is None:
            reject("requires file as well: that of a service account", "subject")
        for key in ("audience", "subject"):
            if getattr(self, key) is not None and self.file and _kind_of_key(self.file) != _SERVICE_ACCOUNT:
                reject("needs the file of a service account", key)
        return self


# --- Bedrock

_TWELVE_HOURS: Final = 12 * 3600


class BedrockCredential(IssuerSection):
    """A short-term key for Amazon Bedrock, signed on this machine with AWS credentials."""

    package: ClassVar[str] = "aws-bedrock-token-generator"
    modules: ClassVar[tuple[str, ...]] = ("aws_bedrock_token_generator", "botocore")
    choices: ClassVar[tuple[str, ...]] = _AWS_CHOICES

    source: Literal["bedrock"]
    region: Annotated[str, matching(r"[a-z0-9]+(-[a-z0-9]+)+", 'must be a region, such as "us-east-1"')]
    ttl: Annotated[Count, Field(le=_TWELVE_HOURS)] = _TWELVE_HOURS
    """The lifetime of a key in seconds; temporary AWS credentials may end it earlier."""
    profile: Name | None = None
    """A profile of the AWS configuration files; by default whatever botocore finds."""
