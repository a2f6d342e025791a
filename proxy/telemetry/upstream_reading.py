"""How an upstream stands, in plain numbers."""

from collections.abc import Mapping
from typing import Final, NamedTuple

CIRCUIT_STATES: Final = ("closed", "opened", "half-opened")


class UpstreamReading(NamedTuple):
    """One upstream at one moment."""

    upstream: str
    circuit: str | None
    """One of those; None without a breaker."""
    attempts: Mapping[str, int]
    """How many ended so, since the start: by a class of statuses, as `2xx`, or by the code of an error."""
