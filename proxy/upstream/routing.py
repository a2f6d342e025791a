"""Which upstream serves which endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.settings import Settings, Timeouts
from proxy.upstream.client import UpstreamClient


@dataclass(frozen=True, slots=True)
class Route:
    """Where one request goes."""

    endpoint: str
    upstream: str
    client: UpstreamClient
    timeouts: Timeouts


class Routing:
    """Choose by endpoint, as `[routes]` says; what is not named there goes to the default.

    Args:
        settings: The whole configuration.
        clients: One client an upstream, by name.
    """

    def __init__(self, settings: Settings, clients: Mapping[str, UpstreamClient]) -> None:
        self._endpoints = settings.routes.endpoints
        self._default = settings.routes.default
        self._upstreams = settings.upstreams
        self._clients = clients

    def choose(self, endpoint: str) -> Route:
        """The route of an endpoint; a path below a named one (`models/gpt-4o`) goes the same way."""
        name = self._default
        place = endpoint
        while place:
            if place in self._endpoints:
                name = self._endpoints[place]
                break
            place = place.rpartition("/")[0]
        return Route(endpoint, name, self._clients[name], self._upstreams[name].timeouts)
