"""Which upstream serves which endpoint: the longest named beginning, or the default."""

from collections.abc import Mapping
from typing import cast

import pytest

from proxy.settings import Access, Routes, Settings, Timeouts, Upstream
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
