"""`source = "static"`: a token that stands in the configuration, or alone in a file."""

from typing import Literal, Self

from pydantic import model_validator

from proxy.settings.credentials.section import CredentialSection
from proxy.settings.fields import KeyText, ReadableFile
from proxy.settings.section import refuse


class StaticCredential(CredentialSection):
    """A token without an end."""

    source: Literal["static"]
    value: KeyText | None = None
    """The token itself, or:"""
    file: ReadableFile | None = None
    """a file that is the token, read anew every minute."""

    @model_validator(mode="after")
    def _has_one_place(self) -> Self:
        if self.value is None and self.file is None:
            refuse("is required: the token itself, or file, the path of one that holds it", "value")
        if self.value is not None and self.file is not None:
            refuse("stands beside value: give one of the two", "file")
        return self
