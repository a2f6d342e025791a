"""What a request for a token holds, filled in at the moment that it is written.

Leaves are strings, Secrets, texts with late references (`${now}`, `${credential:NAME}`), and values that are
made anew for each request, such as signed assertions.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

from proxy.credentials.credential import Credential
from proxy.secret import Secret
from proxy.settings.interpolation import LateReference, LateText


@runtime_checkable
class MadeForEachRequest(Protocol):
    """A value that no two requests share."""

    def make(self, moment: "Moment") -> str:
        """The value for a request at this moment."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What late references stand for in one request.

    Args:
        tokens: The other credentials that the request holds, by name.
        now: Seconds since the epoch.
    """

    tokens: Mapping[str, Credential] = field(default_factory=dict)
    now: float = field(default_factory=time.time)

    def fill(self, value: Any) -> Any:
        """The value as it is sent; secrets are unwrapped here and nowhere before."""
        if isinstance(value, Secret):
            return value.reveal()
        if isinstance(value, LateText):
            return self._text(value)
        if isinstance(value, Mapping):
            return {key: self.fill(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.fill(item) for item in value)
        if isinstance(value, MadeForEachRequest):
            return value.make(self)
        return value

    def fill_json(self, value: Any) -> Any:
        """The same for JSON, where `"${now}"` and `"${now_ms}"` alone are numbers."""
        if isinstance(value, Mapping):
            return {key: self.fill_json(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.fill_json(item) for item in value]
        if isinstance(value, LateText) and value.parts in {
            (LateReference("now"),),
            (LateReference("now_ms"),),
        }:
            return int(self._text(value))
        return self.fill(value)

    def _text(self, text: LateText) -> str:
        return "".join(part if isinstance(part, str) else self._late(part) for part in text.parts)

    def _late(self, reference: LateReference) -> str:
        if reference.kind == "credential":
            return self.tokens[reference.name].secret.reveal()
        if reference.kind == "uuid":
            return str(uuid4())
        return str(int(self.now * (1000 if reference.kind == "now_ms" else 1)))


def credentials_in(value: Any) -> Iterator[str]:
    """The names of the credentials whose tokens a value holds."""
    if isinstance(value, LateText):
        yield from value.credentials
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from credentials_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from credentials_in(item)
