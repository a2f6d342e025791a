"""`source = "http"`: a token endpoint of any make, described instead of programmed."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from proxy.settings.credentials.section import RequestSection
from proxy.settings.fields import DottedPath, HeaderName, PositiveSeconds, UtcOffset
from proxy.settings.recipe_values import BasicPair, HeaderTextOrSecret, Json, Scalar, Text, json_value
from proxy.settings.section import Checked, Section, Table, refuse
from proxy.settings.urls import EndpointUrl

THIRTY_ONE_DAYS = 31 * 24 * 3600.0


class Success(Section):
    """The sign in a token endpoint's reply that all went well."""

    path: DottedPath
    equals: Scalar


class Expiry(Section):
    """One place in the reply that tells the token's life, and how to read it."""

    path: DottedPath | None = None
    """For `jwt` it may be left out: then the token itself tells its end."""
    unit: Literal["seconds", "milliseconds", "epoch", "epoch_ms", "iso8601", "jwt"] = Field(alias="as")
    """`seconds` and `milliseconds` count from now; the others are points in time."""
    offset: UtcOffset | None = None
    """With `iso8601`: of the issuer's clock, where its times name no zone."""

    @property
    def candidate(self) -> tuple[str, str]:
        """Path and unit; an empty path is the token itself."""
        return self.path or "", self.unit + (self.offset or "")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.path is None and self.unit != "jwt":
            refuse("is required", "path")
        if self.offset is not None and self.unit != "iso8601":
            refuse('is of no use to this unit: it belongs to as = "iso8601"', "offset")
        return self


def candidates_of(expires: "tuple[Expiry, ...]") -> tuple[tuple[str, str], ...]:
    """Path and unit of each place, in order of trust."""
    return tuple(expiry.candidate for expiry in expires)


class HttpCredential(RequestSection):
    """One request, and how to read its reply."""

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
    """the response header that is the token, or:"""
    token_text: bool = False
    """the whole reply is the token, as text."""
    expires: tuple[Expiry, ...] = ()
    """Tried in order; the first that is there counts."""
    refresh_in: DottedPath | None = None
    """Where the reply says after how many seconds it wants to be asked again."""
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
        places = {"token": self.token, "token_header": self.token_header, "token_text": self.token_text}
        given = [name for name, value in places.items() if value]
        if not given:
            refuse('is required: the path of the token in the reply, such as "data.token"', "token")
        if len(given) > 1:
            refuse(f"stands beside {given[0]}: give one of the two", given[1])
        return self
