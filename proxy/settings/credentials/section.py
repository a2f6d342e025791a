"""The keys that all credentials have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from proxy.settings.fields import (
    FRAMING,
    CaFile,
    DottedPath,
    HeaderName,
    Name,
    PositiveSeconds,
    ProxyUrl,
    ReadableFile,
    Template,
    check_client_certificate,
)
from proxy.settings.recipe_values import Scalar
from proxy.settings.section import Section, reject, reject_together


class Inject(Section):
    """Where the token is written: into a header or a query parameter, through a template."""

    header: HeaderName | None = None
    query: Name | None = None
    template: Template = "Bearer {token}"
    """`{token}` is replaced by the token. For a query parameter the default is `{token}`."""

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        defaults = {"template": "{token}"} if "query" in value else {"header": "Authorization"}
        return {**defaults, **value}

    @model_validator(mode="after")
    def _goes_to_one_place(self) -> Self:
        reject_together({"header": self.header, "query": self.query})
        if self.header is not None and self.header.lower() in FRAMING | {"host"}:
            reject("controls the connection and cannot carry a token", "header")
        return self


class Invalidation(Section):
    """A response by which an upstream rejects a token. All conditions that are set must hold."""

    status: int = Field(ge=200, le=599)
    www_authenticate: str | None = None
    """Text that the WWW-Authenticate header must contain, such as `invalid_token`."""
    path: DottedPath | None = None
    """A path in a JSON body, for gateways that report an error inside a 200,"""
    values: tuple[Scalar, ...] = Field(default=(), alias="in")
    """and the values there that mean a rejection. The key in the file is `in`."""

    @model_validator(mode="after")
    def _names_path_and_values_together(self) -> Self:
        if self.path is not None and not self.values:
            reject("is required with path: the values that mean a rejection", "in")
        if self.values and self.path is None:
            reject("is required with in: where the body holds the value", "path")
        if self.path is None and self.status < 400 and self.www_authenticate is None:
            reject("would match every response: restrict it with path and in", "status")
        return self


class CredentialSection(Section):
    """The keys of every credential. Times are in seconds."""

    source: str
    inject: Inject = Inject(header="Authorization")
    default_ttl: PositiveSeconds = 300
    """The lifetime of a token if the issuer does not announce one."""
    timeout: PositiveSeconds = 10
    """The time limit for one fetch."""
    invalidate_on: tuple[Invalidation, ...] = (Invalidation(status=401),)
    """The responses by which an upstream rejects a token."""
    reissue: Literal["independent", "same_until_near_expiry", "revokes_previous"] = "independent"
    """What a second request returns: another valid token, the same one, or one that revokes the first."""
    sharing: Literal["local", "redis", "redis_required"] = "local"
    """Who shares a token: the requests of one process, or all processes that use the same Redis. If Redis is
    unavailable, each process fetches tokens for itself, unless Redis is required."""

    @property
    def inherited_choices(self) -> Mapping[str, str | Path]:
        """The variables of the service's environment that may decide which token is fetched.

        A path stands for a key file, whose content decides.
        """
        return {}


def environ_of(info: ValidationInfo) -> Mapping[str, str]:
    """Return the environment of the service (validation context `environ`)."""
    environ: Mapping[str, str] = (info.context or {}).get("environ", {})
    return environ


class RequestSection(CredentialSection):
    """The keys of every credential whose token endpoint is reached over HTTP."""

    connect_timeout: PositiveSeconds = 2
    """The time limit for connecting, within `timeout`."""
    ca_file: CaFile | None = None
    """PEM certificates to trust for the token endpoint instead of the system's."""
    client_cert: ReadableFile | None = None
    """PEM certificate that identifies the proxy to the endpoint (mutual TLS),"""
    client_key: ReadableFile | None = None
    """and its key without a pass phrase, if it is in a separate file."""
    proxy: ProxyUrl | None = None
    """The HTTP proxy to use; proxies of the environment are ignored."""

    @model_validator(mode="after")
    def _has_a_usable_client_certificate(self) -> Self:
        if self.client_key is not None and self.client_cert is None:
            reject("requires client_cert as well", "client_key")
        if self.client_cert is not None:
            check_client_certificate(self.client_cert, self.client_key)
        return self
