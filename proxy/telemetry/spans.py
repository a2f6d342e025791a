"""What the rest of the program knows of a trace; `traces` implements it if `[traces]` is set."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from proxy.wire.headers import Headers

FieldValue = str | int | float | bool | None
Fields = Callable[[], Mapping[str, FieldValue]]
"""Returns the fields of the log line of an exchange, as they are now."""


class AttemptSpan(Protocol):
    """The span of one attempt at an upstream."""

    status: int | None
    """The upstream's status, once it is known."""
    error: str | None
    """The code of the error that ended the attempt before the response began."""

    def propagate(self, headers: Headers) -> Headers:
        """Return headers with the context of this span in place of that of the caller."""
        ...


class ExchangeSpan(Protocol):
    """The span of one exchange."""

    trace_id: str
    """The trace id for the log."""

    def attempt(
        self, upstream: str, endpoint: str, model: str | None, fields: Fields
    ) -> AbstractContextManager[AttemptSpan]:
        """Return a span that ends with the block, with the fields of that moment."""
        ...

    def end(self, fields: Mapping[str, FieldValue]) -> None:
        """End the span."""
        ...
