"""Which upstream serves which request: by its model, by its endpoint, or the default one."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from proxy.settings import ModelRoute, Settings, Timeouts
from proxy.upstream.client import UpstreamClient
from proxy.wire.repairs import Repairs, resolve

NO_REPAIRS: Final = Repairs()


@dataclass(frozen=True, slots=True)
class Route:
    """Where one request goes."""

    endpoint: str
    upstream: str
    client: UpstreamClient
    timeouts: Timeouts
    rename: str | None = None
    """The model's name up there, where it is another one."""
    repairs: Repairs = NO_REPAIRS
    """Those of the upstream and those of the caller."""


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
        self._callers = {key.name: key.repairs for key in settings.access.keys}
        self._repairs: dict[tuple[str, str | None], Repairs] = {}

    def choose(self, endpoint: str, model: str | None = None, caller: str | None = None) -> Route:
        """The route of a request.

        Args:
            endpoint: A path below a named one (`models/gpt-4o`) goes the same way.
            model: As the request names it, where it does.
            caller: By its name; its repairs count beside those of the upstream.
        """
        route = self._of_model(model)
        name = self._of_endpoint(endpoint) if route is None else route.upstream
        rename = None if route is None else route.rename
        timeouts, repairs = self._upstreams[name].timeouts, self._repairs_of(name, caller)
        return Route(endpoint, name, self._clients[name], timeouts, rename, repairs)

    def _repairs_of(self, upstream: str, caller: str | None) -> Repairs:
        pair = (upstream, caller if caller in self._callers else None)
        if pair not in self._repairs:  # at most one for each pair of names in the configuration
            of_caller = self._callers.get(caller or "", ())
            self._repairs[pair] = resolve([*self._upstreams[upstream].repairs, *of_caller])
        return self._repairs[pair]

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
