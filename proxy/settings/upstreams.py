"""`[upstreams.NAME]`: the APIs that requests are relayed to."""

from pydantic import Field

from proxy.settings.fields import (
    CaFile,
    Count,
    HeaderName,
    HeaderText,
    Name,
    PositiveSeconds,
    RepairName,
    Seconds,
    Share,
    Status,
    Tries,
)
from proxy.settings.section import Section, Table
from proxy.settings.urls import BaseUrl, ProxyUrl


class Timeouts(Section):
    """The clocks of an exchange, in seconds; 0 is none."""

    connect: Seconds = 5
    """Until the connection stands, TLS included."""
    first_byte: Seconds = 120
    """From the request to the first byte of the body: a model may think long."""
    idle: Seconds = 60
    """The longest gap between two chunks."""
    total: Seconds = 0
    """The whole exchange. None by default: long answers are not faults."""


class Retries(Section):
    """When a request goes to the same upstream again: nothing of it was sent, or the upstream asks for it."""

    attempts: Tries = 0
    """How many more times at most. 0 leaves it to the callers."""
    longest_wait: PositiveSeconds = 2
    """Seconds; an upstream that asks to come back later than that is not waited for."""
    budget: Share = 0.2
    """Retries beside every first attempt, so that they cannot bury an upstream that is in trouble."""


class Breaker(Section):
    """When an upstream that fails is left alone for a while."""

    failures: Count = 5
    """One after the other: no connection, no answer, no answer in time, or 502, 503, 504."""
    cool_down: PositiveSeconds = 10
    """Seconds; then one request is let through, and its end decides."""


class Upstream(Section):
    """One API: where it is, what authorizes us there, and how long we wait for it."""

    base_url: BaseUrl
    """Without a trailing slash. `embedded:` stands for the demonstration gateway until it is resolved."""
    credential: str | None = None
    """A name in `[credentials]`; none sends no authorization."""
    timeouts: Timeouts = Timeouts()
    max_connections: Count = 2000
    headers: Table[HeaderName, HeaderText] = Field(default_factory=dict)
    """Set on every request. A value that came from the environment or a file is masked when shown."""
    forward_openai_account: bool = False
    """Whether the callers' OpenAI-Organization and OpenAI-Project go up."""
    repairs: tuple[RepairName, ...] = ()
    """What is cured on the way, by the names of repairs or of the clients that need them."""
    renames: Table[Name, Name] = Field(default_factory=dict)
    """What models are called here, by their names or patterns; the rename of a route comes first."""
    fallback: str | None = None
    """The upstream that is asked when this one fails before the first byte."""
    fallback_statuses: tuple[Status, ...] = (429, 502, 503, 504)
    """Answers that count as a failure, where there is another upstream to ask."""
    retries: Retries = Retries()
    breaker: Breaker | None = None
    """By default there is one where another upstream can be asked instead."""
    heartbeat: Seconds = 0
    """Seconds of silence after which a caller of a stream gets a comment line; 0 is never."""
    ca_file: CaFile | None = None
    """PEM certificates to trust instead of the system's."""
    proxy: ProxyUrl | None = None
    """An HTTP proxy to go through; those of the environment are not used."""
