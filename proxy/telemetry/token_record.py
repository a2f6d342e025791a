"""What happened to one credential since the start, and how it stands: plain numbers, read when asked for."""

from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(slots=True)
class TokenStats:
    """Counts, and sums of seconds."""

    served_fresh: int = 0
    served_stale: int = 0
    """Handed out while its successor was due."""
    waits: int = 0
    wait_seconds: float = 0.0
    fetches: int = 0
    fetches_failed_passing: int = 0
    fetches_failed_permanent: int = 0
    fetch_seconds: float = 0.0
    rejections: int = 0
    """Refusals by an upstream that led to a fetch,"""
    rejections_without_effect: int = 0
    """and those of a token that was replaced already, or within the cool-down."""
    early_deaths: int = 0
    """Tokens that an upstream rejected before their end, and whose successors it accepted."""
    adopted: int = 0
    """Tokens that another process had fetched."""
    lease_wait_seconds: float = 0.0
    store_errors: int = 0

    @property
    def fetches_ok(self) -> int:
        """Those that brought a token."""
        return self.fetches - self.fetches_failed_passing - self.fetches_failed_permanent

    def waited(self, seconds: float) -> None:
        """Somebody had to wait for a token."""
        self.waits += 1
        self.wait_seconds += seconds


State = Literal["empty", "fresh", "stale", "suspect", "expired"]


class TokenReading(NamedTuple):
    """How things stand with one credential, for metrics."""

    credential: str
    state: State
    remaining_seconds: float
    """That the token in hand may still be sent."""
    generation: int
    waiters: int
    backoff_seconds: float
    """Until the next fetch may begin."""
    learned_life_seconds: float
    """The life that tokens are observed to have, where it is believed over the announced one; else 0."""
    counts: TokenStats
