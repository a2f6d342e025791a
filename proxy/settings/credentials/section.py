"""What every credential has, whatever its source."""

from typing import Literal, Self

from pydantic import Field, model_validator

from proxy.settings.fields import (
    CaFile,
    DottedPath,
    HeaderName,
    Name,
    PositiveSeconds,
    ReadableFile,
    Template,
)
from proxy.settings.recipe_values import Scalar
from proxy.settings.section import Section, refuse
from proxy.settings.urls import ProxyUrl

_FRAMING = frozenset({"connection", "content-length", "expect", "host", "transfer-encoding", "upgrade"})


class Inject(Section):
    """Where the token goes: into a header or into the query, through a template either way."""

    header: HeaderName | None = None
    query: Name | None = None
    template: Template = "Bearer {token}"
    """`{token}` is replaced by the token. In a query the default is the bare token."""

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        defaults = {"template": "{token}"} if "query" in value else {"header": "Authorization"}
        return {**defaults, **value}

    @model_validator(mode="after")
    def _goes_to_one_place(self) -> Self:
        if self.header is not None and self.query is not None:
            refuse("stands beside header: give one of the two", "query")
        if self.header is not None and self.header.lower() in _FRAMING:
            refuse("is a header that belongs to the connection: a token cannot stand in it", "header")
        return self


class Invalidation(Section):
    """One sign in an upstream's answer that it refuses our token. All that is given must fit."""

    status: int = Field(ge=200, le=599)
    www_authenticate: str | None = None
    """Text that the header of that name must hold, such as `invalid_token`."""
    path: DottedPath | None = None
    """A place in a JSON body, for gateways that refuse with an error inside a 200,"""
    values: tuple[Scalar, ...] = Field(default=(), alias="in")
    """and the values there that mean a refusal; `in` in the file."""

    @model_validator(mode="after")
    def _names_path_and_values_together(self) -> Self:
        if self.path is not None and not self.values:
            refuse("is required beside path: the values that mean a refusal", "in")
        if self.values and self.path is None:
            refuse("is required beside in: where the body holds the value", "path")
        if self.path is None and self.status < 400 and self.www_authenticate is None:
            refuse("would take every answer for a refusal: say which with path and in", "status")
        return self


class CredentialSection(Section):
    """The common keys. Times are in seconds."""

    source: str
    inject: Inject = Inject(header="Authorization")
    default_ttl: PositiveSeconds = 300
    """The token's life where nothing tells it."""
    timeout: PositiveSeconds = 10
    """For one fetch."""
    invalidate_on: tuple[Invalidation, ...] = (Invalidation(status=401),)
    """What an upstream answers to a token that it takes no more."""
    reissue: Literal["independent", "same_until_near_expiry", "revokes_previous"] = "independent"
    """What asking again does: a new token beside the old, the same one, or a new one that kills the old."""
    sharing: Literal["local", "redis", "redis_required"] = "local"
    """Who shares a token: the requests of one process, or all processes at one Redis. Without Redis each of
    them goes on for itself, unless it is required."""


class RequestSection(CredentialSection):
    """What every token endpoint that is asked over HTTP has beside."""

    connect_timeout: PositiveSeconds = 2
    """For the connection alone, within `timeout`."""
    ca_file: CaFile | None = None
    """PEM certificates to trust at the token endpoint instead of the system's."""
    client_cert: ReadableFile | None = None
    """PEM certificate that shows the endpoint who we are (mutual TLS),"""
    client_key: ReadableFile | None = None
    """and its key, where that stands in a file of its own."""
    proxy: ProxyUrl | None = None
    """An HTTP proxy to go through; those of the environment are not used."""

    @model_validator(mode="after")
    def _has_a_certificate_to_its_key(self) -> Self:
        if self.client_key is not None and self.client_cert is None:
            refuse("needs client_cert beside it", "client_key")
        return self
