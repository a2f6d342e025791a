"""The relayed operations, one for each path and method of the table of endpoints (pure)."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from proxy.wire.endpoints import OTHER, TABLE, Endpoint, match

METHODS: Final = ("POST", "GET", "PUT", "PATCH", "DELETE")
"""The methods that the description lists. HEAD is treated like GET, and OPTIONS is relayed as well."""
_WILDCARD: Final = re.compile(r"\{model\}\*\*|\{model\}|\*\*|\*")
_SAMPLE: Final = "x"


class RelayedPath(NamedTuple):
    """A path below the version, with its endpoint for each method."""

    template: str
    """The path as OpenAPI writes it, such as `models/{model}`."""
    parameters: tuple[tuple[str, str], ...]
    """The names in braces and their meanings, in order."""
    endpoints: dict[str, Endpoint]
    """The endpoints by method."""


def relayed_paths() -> Iterator[RelayedPath]:
    """Yield the paths of the table, and last a wildcard for all others."""
    for pattern in dict.fromkeys(pattern for row in TABLE for pattern in row.paths or (row.name,)):
        segments = _WILDCARD.sub(_SAMPLE, pattern).split("/")
        found = {method: match(method, segments).endpoint for method in METHODS}
        known = {method: endpoint for method, endpoint in found.items() if endpoint in TABLE}
        yield RelayedPath(*_template(pattern), known)
    yield RelayedPath(*_template("**"), dict.fromkeys(METHODS, OTHER))


def _template(pattern: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Write a pattern as OpenAPI does, which has no parameter for several segments: the meaning says so."""
    parameters: list[tuple[str, str]] = []

    def name(found: re.Match[str]) -> str:
        kind = found[0]
        if kind == "**":
            parameters.append(("path", "The rest of the path: one segment or more."))
        elif kind == "*":
            parameters.append(("id", "The id of an object."))
        else:
            more = " It may contain slashes." if kind.endswith("**") else ""
            parameters.append(("model", f"The id of a model.{more}"))
        return f"{{{parameters[-1][0]}}}"

    return _WILDCARD.sub(name, pattern), tuple(parameters)
