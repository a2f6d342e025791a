"""What the service asks an SDK for (pure). The fields are those of the settings."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerParameters:
    """How to reach an issuer."""

    timeout: float
    ca_file: str | None = None
    proxy: str | None = None
    trust_env: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AzureParameters(IssuerParameters):
    """A token of Microsoft Entra ID. The representation is not generated, because some fields are secrets."""

    source: ClassVar[str] = "azure"
    scope: str
    method: str = "default"
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    certificate_file: str | None = None
    certificate_password: str | None = None
    token_file: str | None = None
    authority: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleParameters(IssuerParameters):
    """An access token or ID token of Google."""

    source: ClassVar[str] = "google"
    scopes: tuple[str, ...]
    default_ttl: float
    file: str | None = None
    audience: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BedrockParameters(IssuerParameters):
    """A short-term key for Amazon Bedrock."""

    source: ClassVar[str] = "bedrock"
    region: str
    ttl: int
    profile: str | None = None


Parameters: TypeAlias = AzureParameters | GoogleParameters | BedrockParameters
_KINDS: Final[Mapping[str, type[Parameters]]] = {
    kind.source: kind for kind in (AzureParameters, GoogleParameters, BedrockParameters)
}


def write_parameters(parameters: Parameters) -> bytes:
    """Return the input of the process. It contains secrets."""
    return json.dumps([parameters.source, asdict(parameters)]).encode()


def read_parameters(text: bytes) -> Parameters:
    """Return what `write_parameters` wrote."""
    source, values = json.loads(text)
    fields: dict[str, Any] = {  # JSON has no tuples
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return _KINDS[source](**fields)
