"""`source = "http"`: any token endpoint, described by its request and its reply."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from proxy.settings.credentials.section import RequestSection
from proxy.settings.fields import DottedPath, EndpointUrl, HeaderName, PositiveSeconds, UtcOffset
from proxy.settings.recipe_values import BasicPair, HeaderTextOrSecret, Json, Scalar, Text, json_value
from proxy.settings.section import Checked, Section, Table, reject, reject_together

THIRTY_ONE_DAYS = 31 * 24 * 3600.0


class Success(Section):
    """The value in the reply of a token endpoint that signals success."""

    path: DottedPath
    equals: Scalar


class Expiry(Section):
    """A place in the reply that holds the token's lifetime, and how to read it."""

    path: DottedPath | None = None
    """Optional for `jwt`, where the default is the token itself."""
    unit: Literal["seconds", "milliseconds", "epoch", "epoch_ms", "iso8601", "jwt"] = Field(alias="as")
    """`seconds` and `milliseconds` count from now; the others are points in time."""
    offset: UtcOffset | None = None
    """The UTC offset of times that have no time zone, for `iso8601`."""

    @property
    def candidate(self) -> tuple[str, str]:
        """Path and unit; an empty path means the token itself."""
        return self.path or "", self.unit + (self.offset or "")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.path is None and self.unit != "jwt":
            reject("is required", "path")
        if self.offset is not None and self.unit != "iso8601":
            reject('is only used with as = "iso8601"', "offset")
        return self


def candidates_of(expires: "tuple[Expiry, ...]") -> tuple[tuple[str, str], ...]:
    """Return path and unit of each place, in order of preference."""
    return tuple(expiry.candidate for expiry in expires)


class HttpCredential(RequestSection):
    """The request to a token endpoint, and how to read the reply."""

    source: Literal["http"]
    url: EndpointUrl
    method: Literal["GET", "POST", "PUT", "PATCH"] = "POST"
    json_body: Annotated[Json, Checked(json_value)] = Field(default=None, alias="json")
    """Sent as application/json. The key in the file is `json`."""
    form: Table[str, Text] | None = None
    """Sent as application/x-www-form-urlencoded."""
    query: Table[str, Text] = Field(default_factory=dict)
    """Added to the query of the URL."""
    headers: Table[HeaderName, HeaderTextOrSecret] = Field(default_factory=dict)
    basic: BasicPair | None = None
    """Id and secret for HTTP basic authentication."""
    success: Success | None = None
    token: DottedPath | None = None
    """The path of the token in the JSON reply, or:"""
    token_header: HeaderName | None = None
    """the response header that contains the token, or:"""
    token_text: bool = False
    """whether the whole reply is the token."""
    expires: tuple[Expiry, ...] = ()
    """Where the reply holds the lifetime, tried in order."""
    refresh_in: DottedPath | None = None
    """The path of the number of seconds after which the issuer wants to be asked again."""
    max_ttl: PositiveSeconds = THIRTY_ONE_DAYS
    """A longer lifetime is considered an error."""

    @field_validator("method", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        reject_together({"json": self.json_body, "form": self.form})
        places = {
            "token": self.token,
            "token_header": self.token_header,
            "token_text": self.token_text or None,
        }
        reject_together(places, 'is required: the path of the token in the reply, such as "data.token"')
        return self
