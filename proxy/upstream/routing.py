"""Which upstream serves which request: by its model, by its endpoint, or the default one."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from proxy.settings import ModelRoute, Settings, Timeouts
from proxy.upstream.client import UpstreamClient


@dataclass(frozen=True, slots=True)
class Route:
    """Where one request goes."""

    endpoint: str
    upstream: str
    client: UpstreamClient
    timeouts: Timeouts
    rename: str | None = None
    """The model's name up there, where it is another one."""


class Routing:
    """Choose as `[routes]` says: the first route of models that fits, then by endpoint; else the default.

    Args:
        settings: The whole configuration.
        clients: One client an upstream, by name.
    """

    def __init__(self, settings: Settings, clients: Mapping[str, UpstreamClient]) -> None:
        self._models = settings.routes.models
        self._endpoints = settings.routes.endpoints
        self._default = settings.routes.default
        self._upstreams = settings.upstreams
        self._clients = clients

    def choose(self, endpoint: str, model: str | None = None) -> Route:
        """The route of a request.

        Args:
            endpoint: A path below a named one (`models/gpt-4o`) goes the same way.
            model: As the request names it, where it does.
        """
        route = self._of_model(model)
        name = self._of_endpoint(endpoint) if route is None else route.upstream
        rename = None if route is None else route.rename
        return Route(endpoint, name, self._clients[name], self._upstreams[name].timeouts, rename)

    def _of_model(self, model: str | None) -> ModelRoute | None:
        if model is None:
            return None
        return next((route for route in self._models if fnmatchcase(model, route.match)), None)

    def _of_endpoint(self, endpoint: str) -> str:
        place = endpoint
        while place:
            if place in self._endpoints:
                return self._endpoints[place]
            place = place.rpartition("/")[0]
        return self._default
