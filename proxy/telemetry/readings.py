"""Plain numbers about credentials, upstreams and usage, from which the metrics are computed when scraped."""

import socket
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

# --- credentials


class TokenStats(msgspec.Struct):
    """Counters of one credential since start-up, and sums of seconds."""

    served_fresh: int = 0
    served_stale: int = 0
    """Served although it was time to refresh them."""
    waits: int = 0
    wait_seconds: float = 0.0
    fetches: int = 0
    fetches_failed_passing: int = 0
    fetches_failed_permanent: int = 0
    fetch_seconds: float = 0.0
    rejections: int = 0
    """Rejections by an upstream that caused a fetch."""
    rejections_without_effect: int = 0
    """Rejections of tokens that were already replaced, or within the cool-down."""
    early_deaths: int = 0
    """Tokens that an upstream rejected before their expiry, and whose successors it accepted."""
    adopted: int = 0
    """Tokens that another process or credential had fetched."""
    lease_wait_seconds: float = 0.0
    store_errors: int = 0

    @property
    def fetches_ok(self) -> int:
        """Fetches that returned a token."""
        return self.fetches - self.fetches_failed_passing - self.fetches_failed_permanent

    def waited(self, seconds: float) -> None:
        """Count one request that waited for a token."""
        self.waits += 1
        self.wait_seconds += seconds


TokenState = Literal["empty", "fresh", "stale", "suspect", "expired"]


class TokenLife(NamedTuple):
    """The age of a token, and the ages at which something happens to it, in seconds."""

    age: float
    refresh: float
    """When it is refreshed, while it stays in use."""
    expiry: float
    """When it is no longer sent."""
    end: float
    """When it ends according to the issuer; infinite only if it never expires as far as is known."""


class TokenReading(NamedTuple):
    """The state of one credential at one moment."""

    credential: str
    state: TokenState
    remaining_seconds: float
    """How long the current token may still be sent."""
    lifetime_seconds: float
    """How long the current token could be sent when it was fetched; 0 without a token."""
    generation: int
    waiters: int
    backoff_seconds: float
    """Time until the next fetch may begin."""
    learned_life_seconds: float
    """The observed lifetime of tokens, if it is used instead of the announced one; otherwise 0."""
    counts: TokenStats
    life: TokenLife | None = None
    """The ages of the token; None without a token."""


# --- upstreams

CIRCUIT_STATES: Final = ("closed", "opened", "half-opened")


class UpstreamReading(NamedTuple):
    """The state of one upstream at one moment."""

    upstream: str
    circuit: str | None
    """One of `CIRCUIT_STATES`; None without a circuit breaker."""
    attempts: Mapping[str, int]
    """Attempts since start-up, by status class such as `2xx`, or by the code of the error."""
    running: int = 0
    """Requests that it has not answered completely."""
    running_max: int = 0
    """The limit on them."""


# --- callers and this worker


class HttpServerReading(msgspec.Struct, frozen=True):
    """What the HTTP server knows and the application does not; the server keeps it up to date."""

    rejections: Counter[int] = msgspec.field(default_factory=Counter)
    """Requests that the server has rejected by itself, by status."""
    listeners: Sequence[socket.socket] = ()
    """The sockets on which it accepts connections."""


class CallerReading(NamedTuple):
    """What one caller uses at one moment, and how often a limit rejected it."""

    caller: str
    streams: int
    streams_max: int | None
    """The limit on streams; None without a limit."""
    rejected: Mapping[str, int]
    """Requests rejected since start-up, by the limit that they exceeded."""


class WorkerReading(NamedTuple):
    """What this worker has in hand at one moment."""

    attempts_running: int
    held_bytes: int
    held_bytes_max: int
    callers: Sequence[CallerReading]
    http_rejections: Mapping[int, int]
    """Requests that the server has rejected by itself, by status."""


# --- usage

MODELS_MAX: Final = 200
"""Callers choose model names, so further names are counted as `other`."""
MODEL_CHARACTERS_MAX: Final = 128
"""Longer names are counted as `other`."""
OTHER_MODEL: Final = "other"


class UsageKey(NamedTuple):
    """The labels by which usage is counted."""

    caller: str
    model: str
    upstream: str


class UsageTotals:
    """Prompt and completion tokens since start-up, by caller, model and upstream."""

    def __init__(self) -> None:
        self._totals: dict[UsageKey, tuple[int, int]] = {}
        self._models: set[str] = set()

    def add(self, caller: str, model: str, upstream: str, prompt: int, completion: int) -> None:
        """Count the tokens of one exchange."""
        if model not in self._models:
            is_label = len(model) <= MODEL_CHARACTERS_MAX and model.isprintable()
            if not is_label or len(self._models) >= MODELS_MAX:
                model = OTHER_MODEL
            self._models.add(model)
        key = UsageKey(caller, model, upstream)
        before = self._totals.get(key, (0, 0))
        self._totals[key] = (before[0] + prompt, before[1] + completion)

    def forget(self, callers: Collection[str]) -> None:
        """Drop the counts of callers."""
        self._totals = {key: total for key, total in self._totals.items() if key.caller not in callers}

    def __iter__(self) -> Iterator[tuple[UsageKey, tuple[int, int]]]:
        return iter([*self._totals.items()])
