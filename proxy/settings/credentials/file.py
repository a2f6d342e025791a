"""`source = "file"`: a token in a file that somebody else keeps fresh."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from proxy.settings.credentials.http import Expiry
from proxy.settings.credentials.section import CredentialSection
from proxy.settings.fields import DottedPath, PositiveSeconds, ReadableFile
from proxy.settings.section import refuse


class FileCredential(CredentialSection):
    """A file that is the token, or JSON that holds it. Where the token is a JWT, its `exp` is its end."""

    source: Literal["file"]
    path: ReadableFile
    format: Literal["auto", "text", "json"] = "auto"
    """`auto`: JSON where `token` is given, else text."""
    token: DottedPath | None = None
    """Where the token stands in the JSON."""
    expires: tuple[Expiry, ...] = ()
    """Where the JSON tells the token's end, tried in order; durations count from the file's last change."""
    max_age: Annotated[PositiveSeconds, Field(ge=3, le=60)] = 60
    """How long what was read is believed without another look."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.format == "json" and self.token is None:
            refuse('is required: the path of the token in the JSON, such as "data.token"', "token")
        if self.format == "text" and self.token is not None:
            refuse('has no meaning with format = "text": the whole file is the token', "token")
        if self.expires and self.token is None:
            refuse("needs token beside it: only JSON has such places", "expires")
        return self
