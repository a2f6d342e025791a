"""Fill in the values of a request for a token when it is sent.

Values are strings, Secrets, texts with late references (`${now}`, `${credential:NAME}`), and values that are
generated for each request, such as signed assertions.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable
from uuid import uuid4

import msgspec

from proxy.credentials.token import Token
from proxy.secret import Secret
from proxy.settings.interpolation import LateReference, LateText, late_texts


@runtime_checkable
class GeneratedValue(Protocol):
    """A value that is generated for each request."""

    def make(self, moment: "Moment") -> str:
        """Return the value for a request at this moment."""


class Moment(msgspec.Struct, frozen=True):
    """The values of late references in one request.

    Args:
        tokens: The other credentials that the request contains, by name.
        now: Seconds since the epoch.
    """

    tokens: Mapping[str, Token] = msgspec.field(default_factory=dict)
    now: float = msgspec.field(default_factory=time.time)

    def fill(self, value: object) -> object:
        """Return a value in the form in which it is sent, with secrets revealed."""
        if isinstance(value, Secret):
            return value.reveal()
        if isinstance(value, LateText):
            return self._text(value)
        if isinstance(value, Mapping):
            return {key: self.fill(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.fill(item) for item in value)
        if isinstance(value, GeneratedValue):
            return value.make(self)
        return value

    def fill_json(self, value: object) -> object:
        """Return a JSON value, in which `"${now}"` and `"${now_ms}"` alone become numbers."""
        if isinstance(value, Mapping):
            return self.fill_members(value)
        if isinstance(value, list | tuple):
            return [self.fill_json(item) for item in value]
        if isinstance(value, LateText) and value.parts in {
            (LateReference("now"),),
            (LateReference("now_ms"),),
        }:
            return int(self._text(value))
        return self.fill(value)

    def fill_members(self, table: Mapping[str, object]) -> dict[str, object]:
        """Return the members of a JSON object, as `fill_json` does."""
        return {key: self.fill_json(item) for key, item in table.items()}

    def _text(self, text: LateText) -> str:
        return "".join(part if isinstance(part, str) else self._late(part) for part in text.parts)

    def _late(self, reference: LateReference) -> str:
        if reference.kind == "credential":
            return self.tokens[reference.name].secret.reveal()
        if reference.kind == "uuid":
            return str(uuid4())
        return str(int(self.now * (1000 if reference.kind == "now_ms" else 1)))


def credentials_in(value: object) -> Iterator[str]:
    """Find the names of the credentials whose tokens a value contains."""
    for _, text in late_texts(value):
        yield from text.credentials
