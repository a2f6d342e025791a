"""Which upstream serves which endpoint: the longest named beginning, or the default."""

from collections.abc import Mapping
from typing import cast

import pytest

from proxy.settings import Access, ModelRoute, Routes, Settings, Timeouts, Upstream
from proxy.upstream.client import UpstreamClient
from proxy.upstream.routing import Routing

NAMES = ("main", "embed", "lists", "special")
CLIENTS = {name: cast(UpstreamClient, object()) for name in NAMES}  # chosen among, never called


def routing_of(endpoints: Mapping[str, str]) -> Routing:
    """A routing with those endpoints, each upstream with a clock that tells it from the others."""
    settings = Settings.model_construct(
        access=Access.model_construct(),
        routes=Routes(default="main", endpoints=dict(endpoints)),
        upstreams={
            name: Upstream(base_url=f"http://{name}.test/v1", timeouts=Timeouts(idle=number + 1))
            for number, name in enumerate(NAMES)
        },
    )
    return Routing(settings, CLIENTS)


ENDPOINTS = {
    "embeddings": "embed",
    "models": "lists",
    "models/special": "special",
    "chat/completions": "special",
}


@pytest.mark.parametrize(
    ("endpoint", "upstream"),
    [
        ("embeddings", "embed"),
        ("models", "lists"),
        ("models/gpt-4o", "lists"),
        ("models/a/b/c", "lists"),
        ("models/special", "special"),
        ("models/special/a", "special"),
        ("models/special-not", "lists"),
        ("chat/completions", "special"),
        ("chat/completions/id/messages", "special"),
        ("chat", "main"),
        ("completions", "main"),
        ("chat/other", "main"),
        ("embeddings2", "main"),
        ("x/embeddings", "main"),
        ("models%2Fa", "main"),
        ("Models", "main"),
        ("/models", "main"),
        ("", "main"),
        ("never/heard/of", "main"),
    ],
)
def test_the_longest_named_beginning_decides(endpoint: str, upstream: str) -> None:
    assert routing_of(ENDPOINTS).choose(endpoint).upstream == upstream


@pytest.mark.parametrize(("endpoint", "name"), [("embeddings", "embed"), ("other", "main")])
def test_a_route_has_the_client_and_the_clocks_of_its_upstream(endpoint: str, name: str) -> None:
    route = routing_of(ENDPOINTS).choose(endpoint)
    assert route.endpoint == endpoint
    assert route.client is CLIENTS[name]
    assert route.timeouts.idle == NAMES.index(name) + 1


@pytest.mark.parametrize("endpoint", ["chat/completions", "embeddings", "models/a"])
def test_without_named_endpoints_everything_goes_to_the_default(endpoint: str) -> None:
    assert routing_of({}).choose(endpoint).upstream == "main"


def by_model(*routes: Mapping[str, str]) -> Routing:
    """A routing of models beside that of endpoints."""
    settings = Settings.model_construct(
        access=Access.model_construct(),
        routes=Routes(
            default="main",
            endpoints={"embeddings": "embed"},
            models=tuple(ModelRoute.model_validate(route) for route in routes),
        ),
        upstreams={name: Upstream(base_url=f"http://{name}.test/v1") for name in NAMES},
    )
    return Routing(settings, CLIENTS)


@pytest.mark.parametrize(
    ("endpoint", "model", "upstream", "rename"),
    [
        ("chat/completions", "bge-m3", "special", "bge-m3-corp"),
        ("embeddings", "bge-m3", "special", "bge-m3-corp"),
        ("embeddings", "bge-large", "lists", None),
        ("embeddings", "BGE-large", "embed", None),
        ("embeddings", "text-embedding", "embed", None),
        ("embeddings", None, "embed", None),
        ("chat/completions", "[x]", "main", None),
    ],
)
def test_the_first_model_route_that_fits_counts_before_the_endpoint(
    endpoint: str, model: str | None, upstream: str, rename: str | None
) -> None:
    routing = by_model(
        {"match": "bge-m3", "upstream": "special", "rename": "bge-m3-corp"},
        {"match": "bge-*", "upstream": "lists"},
        {"match": "bge-large", "upstream": "main"},
    )
    route = routing.choose(endpoint, model)
    assert (route.upstream, route.rename, route.endpoint) == (upstream, rename, endpoint)
