"""Which upstreams serve which request: by its model, by its endpoint, or the default one."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from proxy.access import Caller
from proxy.settings import Settings, Timeouts, Upstream
from proxy.telemetry import UpstreamReading
from proxy.upstream.client import UpstreamClient
from proxy.upstream.health import UpstreamHealth
from proxy.wire.endpoints import Endpoint
from proxy.wire.repairs import Repairs, resolve

ANYBODY: Final = Caller("")
"""A caller without a key, and so without its own repairs or limits."""
NO_REPAIRS: Final = Repairs()


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream for one request, with everything that the attempt needs to know."""

    endpoint: Endpoint
    upstream: str
    client: UpstreamClient
    timeouts: Timeouts
    health: UpstreamHealth
    rename: str | None = None
    """The upstream's own name of the model, if it differs."""
    repairs: Repairs = NO_REPAIRS
    """The repairs of the upstream and those of the caller."""
    heartbeat: float = 0.0
    """Seconds of silence after which the caller of a stream gets a comment; 0 is never."""
    fallback_statuses: frozenset[int] = frozenset()
    """Statuses that count as a failure if another upstream can be tried."""


class Balance:
    """Distributes requests among several upstreams by weight: smooth weighted round robin, as in nginx."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = dict(weights)
        self.names = tuple(self._weights)
        self._current = dict.fromkeys(self._weights, 0)

    def order(self, available: Container[str]) -> Sequence[str]:
        """Return all upstreams: the one whose turn it is, then those to try if it fails.

        Args:
            available: The upstreams that take turns; the others come last and lose no turn.
        """
        if len(self.names) == 1:
            return self.names
        among = [name for name in self.names if name in available] or self.names
        for name in among:
            self._current[name] += self._weights[name]
        order = sorted(among, key=lambda name: self._current[name], reverse=True)
        self._current[order[0]] -= sum(self._weights[name] for name in among)
        return [*order, *(name for name in self.names if name not in among)]


class Routing:
    """Chooses upstreams by `[routes]`: the first matching route of models, else the endpoint, else default.

    Args:
        settings: The whole configuration.
        clients: One client for each upstream, by name.
        before: The previous routing; the health of unchanged upstreams is kept.
    """

    def __init__(
        self,
        settings: Settings,
        clients: Mapping[str, UpstreamClient],
        before: "Routing | None" = None,
    ) -> None:
        routes = settings.routes
        self._upstreams = settings.upstreams
        self._clients = clients
        self._repairs: dict[tuple[str, str], Repairs] = {}
        self._of_model = [(route, _balance(route.upstream)) for route in routes.models]
        self._of_endpoint = {name: _balance(target) for name, target in routes.endpoints.items()}
        self._default = _balance(routes.default)
        balances = [self._default, *self._of_endpoint.values(), *(balance for _, balance in self._of_model)]
        if settings.chat is not None and settings.chat.upstream is not None:
            balances.append(_balance(settings.chat.upstream))
        with_alternative = {*_with_alternative(balances, self._upstreams)}
        self._fallback_statuses = {
            name: frozenset(upstream.fallback_statuses) for name, upstream in self._upstreams.items()
        }
        self._health = {
            name: UpstreamHealth(name, upstream, has_alternative=name in with_alternative)
            for name, upstream in self._upstreams.items()
        }
        if before is not None:
            self._health |= {name: kept for name, kept in before._health.items() if self._same(name, kept)}

    def choose(self, endpoint: Endpoint, model: str | None = None, caller: Caller = ANYBODY) -> Route:
        """Return the route of a request that is sent once only; see `plan`."""
        return self.plan(endpoint, model, caller)[0]

    def plan(
        self,
        endpoint: Endpoint,
        model: str | None = None,
        caller: Caller = ANYBODY,
        *,
        at: str | None = None,
    ) -> Sequence[Route]:
        """Return the upstreams to try, in order: the one whose turn it is, its peers, their fallbacks.

        Those whose circuit is open are left out, unless every circuit is open.

        Args:
            endpoint: The endpoint; paths below a named endpoint inherit its route.
            model: The model in the request.
            caller: The caller, whose repairs are added to those of the upstream.
            at: An upstream that is tried first, whatever the routes say.
        """
        if at is not None and at in self._upstreams:
            rename, balance = None, _balance(at)
        else:
            rename, balance = self._matching(model) or (None, self._at(endpoint.name))
        available = [name for name in balance.names if not self._health[name].retry_in]
        names = [*_with_fallbacks(balance.order(available), self._upstreams)]
        if len(names) > 1:
            names = [name for name in names if not self._health[name].retry_in] or names
        return [self._route(name, endpoint, model, rename, caller) for name in names]

    def depends_on_body(self, endpoint: Endpoint, caller: Caller) -> bool:
        """Whether the body of a request can decide its route, or what is changed in it or its response."""
        names = _with_fallbacks(self._at(endpoint.name).names, self._upstreams)
        return bool(self._of_model) or any(
            self._upstreams[name].renames or self._repairs_of(name, caller) for name in names
        )

    def _same(self, name: str, kept: UpstreamHealth) -> bool:
        return name in self._health and kept.is_like(self._health[name])

    def readings(self) -> list[UpstreamReading]:
        """Return the state of each upstream, for `/metrics`."""
        return [
            health.reading()._replace(
                running=self._clients[name].running, running_max=self._upstreams[name].max_connections
            )
            for name, health in self._health.items()
        ]

    def _route(
        self, name: str, endpoint: Endpoint, model: str | None, rename: str | None, caller: Caller
    ) -> Route:
        upstream = self._upstreams[name]
        return Route(
            endpoint=endpoint,
            upstream=name,
            client=self._clients[name],
            timeouts=upstream.timeouts,
            rename=rename or _renamed(upstream, model),
            repairs=self._repairs_of(name, caller),
            heartbeat=upstream.heartbeat if caller.heartbeat is None else caller.heartbeat,
            health=self._health[name],
            fallback_statuses=self._fallback_statuses[name],
        )

    def _repairs_of(self, upstream: str, caller: Caller) -> Repairs:
        pair = (upstream, caller.name)
        if pair not in self._repairs:  # at most one for each pair of names in the configuration
            self._repairs[pair] = resolve([*self._upstreams[upstream].repairs, *caller.repairs])
        return self._repairs[pair]

    def _matching(self, model: str | None) -> tuple[str | None, Balance] | None:
        """Return the first matching route: the upstream's name of the model, and the upstreams."""
        for route, balance in self._of_model if model is not None else ():
            if fnmatchcase(model or "", route.match):
                return route.rename, balance
        return None

    def _at(self, place: str) -> Balance:
        while place:
            if place in self._of_endpoint:
                return self._of_endpoint[place]
            place = place.rpartition("/")[0]
        return self._default


def _balance(target: str | Mapping[str, int]) -> Balance:
    return Balance({target: 1} if isinstance(target, str) else target)


def _with_fallbacks(names: Iterable[str], upstreams: Mapping[str, Upstream]) -> Iterator[str]:
    """Yield each upstream once, peers before the fallbacks of any of them."""
    waiting = [*names]
    seen: set[str] = set()
    while waiting:
        later: list[str] = []
        for name in waiting:
            if name not in seen:
                seen.add(name)
                yield name
                fallback = upstreams[name].fallback
                later += [] if fallback is None else [fallback]
        waiting = later


def _with_alternative(balances: Iterable[Balance], upstreams: Mapping[str, Upstream]) -> Iterator[str]:
    """Yield the upstreams that are not last in a plan: the last one is tried even if its circuit is open."""
    for balance in balances:
        *names, last = _with_fallbacks(balance.names, upstreams)
        yield from names
        if last in balance.names and len(balance.names) > 1:
            yield last


def _renamed(upstream: Upstream, model: str | None) -> str | None:
    if model is None or not upstream.renames:
        return None
    return next((name for match, name in upstream.renames.items() if fnmatchcase(model, match)), None)
