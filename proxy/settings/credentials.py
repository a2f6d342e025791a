"""`[credentials.NAME]`: where the token for an upstream comes from, and how it is put on a request."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, field_validator, model_validator

from proxy.settings.fields import (
    DottedPath,
    HeaderName,
    KeyText,
    Name,
    PlainText,
    PositiveSeconds,
    ReadableFile,
    SecretText,
    Template,
)
from proxy.settings.recipe_values import BasicPair, HeaderTextOrSecret, Json, Scalar, Text, json_value
from proxy.settings.section import Checked, Section, Table, refuse
from proxy.settings.urls import EndpointUrl

THIRTY_ONE_DAYS = 31 * 24 * 3600.0


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
        return self


class Success(Section):
    """The sign in a token endpoint's reply that all went well."""

    path: DottedPath
    equals: Scalar


class Expiry(Section):
    """One place in the reply that tells the token's life, and how to read it."""

    path: DottedPath
    unit: Literal["seconds", "milliseconds", "epoch", "epoch_ms", "iso8601", "jwt"] = Field(alias="as")
    """`seconds` and `milliseconds` count from now; the others are points in time."""


class CredentialSection(Section):
    """What every credential has, whatever its source. Times are in seconds."""

    source: str
    inject: Inject = Inject(header="Authorization")
    default_ttl: PositiveSeconds = 300
    """The token's life where the reply says nothing."""
    timeout: PositiveSeconds = 10
    """For one request to the token endpoint."""
    ca_file: ReadableFile | None = None
    """PEM certificates to trust at the token endpoint instead of the system's."""
    reissue: Literal["independent", "same_until_near_expiry", "revokes_previous"] = "independent"
    """What asking again does: a new token beside the old, the same one, or a new one that kills the old."""
    sharing: Literal["local"] = "local"
    """Who shares a token: the requests of one process."""


class StaticCredential(CredentialSection):
    """A token that never changes."""

    source: Literal["static"]
    value: KeyText


class OAuth2Credential(CredentialSection):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4)."""

    source: Literal["oauth2"]
    token_url: EndpointUrl
    client_id: Name
    client_secret: SecretText
    scope: str | None = None
    audience: str | None = None
    auth: Literal["basic", "post"] = "basic"
    """The client's id and secret go into the Authorization header, or into the form."""
    params: Table[str, PlainText] = Field(default_factory=dict)
    """More fields of the form."""


class HttpCredential(CredentialSection):
    """A token endpoint of any make, described instead of programmed."""

    source: Literal["http"]
    url: EndpointUrl
    method: Literal["GET", "POST", "PUT", "PATCH"] = "POST"
    json_body: Annotated[Json, Checked(json_value)] = Field(default=None, alias="json")
    """Sent as application/json; `json` in the file."""
    form: Table[str, Text] | None = None
    """Sent as application/x-www-form-urlencoded."""
    query: Table[str, Text] = Field(default_factory=dict)
    """Added to the URL's own query."""
    headers: Table[HeaderName, HeaderTextOrSecret] = Field(default_factory=dict)
    basic: BasicPair | None = None
    """Id and secret for HTTP basic authorization."""
    success: Success | None = None
    token: DottedPath | None = None
    """Where the token stands in the JSON reply, or:"""
    token_header: HeaderName | None = None
    """the response header that is the token."""
    expires: tuple[Expiry, ...] = ()
    """Tried in order; the first that is there counts."""
    max_ttl: PositiveSeconds = THIRTY_ONE_DAYS
    """A longer life is not believed."""

    @field_validator("method", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.json_body is not None and self.form is not None:
            refuse("stands beside json: give one of the two", "form")
        if self.token is None and self.token_header is None:
            refuse('is required: the path of the token in the reply, such as "data.token"', "token")
        if self.token is not None and self.token_header is not None:
            refuse("stands beside token: give one of the two", "token_header")
        return self


Credential: TypeAlias = Annotated[
    StaticCredential | OAuth2Credential | HttpCredential, Discriminator("source")
]
