"""`[upstreams.NAME]`: the APIs that requests are relayed to."""

from pydantic import Field

from proxy.settings.fields import CaFile, Count, HeaderName, HeaderText, RepairName, Seconds
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
    repairs: tuple[RepairName, ...] = ()
    """What is cured on the way, by the names of repairs or of the clients that need them."""
    ca_file: CaFile | None = None
    """PEM certificates to trust instead of the system's."""
    proxy: ProxyUrl | None = None
    """An HTTP proxy to go through; those of the environment are not used."""
